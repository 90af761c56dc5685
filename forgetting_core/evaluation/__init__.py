"""Evaluation: benchmarks through lm-evaluation-harness, and on held-out rows the loss and the diversity of answers.

`evaluate`, `held_out` and `diversity` hold the step's computations, `local_tasks` says which files a benchmark will
read.
This file imports nothing heavy, so that the recipe and the planner can ask for names without waiting for torch.
"""

from collections.abc import Mapping

METRICS_FILE = "metrics.json"
"""`{task: {metric: value, metric_stderr: value}}`, and under `PROTOCOL` how the model was asked."""
HELD_OUT = "held_out"
"""The entry of the loss of validation rows."""
DIVERSITY = "diversity"
"""The entry of the answers sampled to their prompts."""
PROTOCOL = "protocol"
RESERVED = (HELD_OUT, DIVERSITY, PROTOCOL)
"""Entries of the file that no benchmark may be called."""
SAMPLES = "samples"
"""The folder beside it: `TASK.jsonl`, a line per item."""
INTERVALS_FILE = "intervals.json"
"""Beside it, of `diversity`: `{metric: {low, high, prompts}}`."""


def is_headline(task: str, metric: str) -> bool:
    """Whether it is shown where there is little room, as in sweeps: of diversity only what stands for it."""
    return task != DIVERSITY or metric in ("distinct_2", "self_bleu")


def is_shown(metric: str, values: Mapping[str, float]) -> bool:
    """Whether a metric of a task, {metric: value}, is worth showing: no standard error, count or part of a mean.

    Counts are integers; `f1.ar` is one of those that `f1` is the mean of.
    """
    whole, dot, _ = metric.partition(".")
    is_part = bool(dot) and whole in values
    return not (metric.endswith("_stderr") or isinstance(values[metric], int) or is_part)
