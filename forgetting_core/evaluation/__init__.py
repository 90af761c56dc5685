"""Evaluation: benchmarks through lm-evaluation-harness, and the loss on held-out rows.

`evaluate` and `held_out` hold the step's two computations, `local_tasks` says which files a benchmark will read.
This file imports nothing, so that the recipe and the planner can ask for names without waiting for torch.
"""

METRICS_FILE = "metrics.json"
"""`{task: {metric: value, metric_stderr: value}}`, and under `PROTOCOL` how the benchmark was asked."""
HELD_OUT = "held_out"
"""The entry of the validation rows."""
PROTOCOL = "protocol"
RESERVED = (HELD_OUT, PROTOCOL)
"""Entries of the file that no benchmark may be called."""
SAMPLES = "samples"
"""The folder beside it: `TASK.jsonl`, a line per item."""
