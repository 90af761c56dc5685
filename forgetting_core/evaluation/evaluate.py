"""The step `evaluate` of a benchmark: one model, its answers, one `metrics.json`."""

import tempfile
from pathlib import Path
from typing import Any

from forgetting_core.config import BenchmarkConfig, ExecutionConfig
from forgetting_core.evaluation import METRICS_FILE, PROTOCOL, SAMPLES, records, tydiqa
from forgetting_core.evaluation.harness import Benchmark, BenchmarkResults, load_benchmarks, run_benchmarks
from forgetting_core.evaluation.protocols import Asked, asked
from forgetting_core.json_files import write_json
from forgetting_core.models import load_checkpoint, load_tokenizer, resolve_device
from forgetting_core.progress import Progress

Metrics = dict[str, dict[str, float]]


def evaluate_benchmarks(
    config: BenchmarkConfig,
    *,
    base: Path,
    checkpoint: Path | None,
    task_dir: Path | None,
    out: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Ask `config.tasks`, one at least; write `metrics.json` and `samples/TASK.jsonl`, an item per line.

    `checkpoint` is a full model or an adapter of `base`; None evaluates the base itself. `task_dir` holds the
    benchmarks' files (`local_tasks`); None lets the harness fetch them from the hub. The batch and the harness's
    warnings go to `aux/harness.json`. Returns `{"metrics": {task: {metric: value, metric_stderr: value}}}` and how
    many `items` were asked.

    Raises `InputError` for tasks that are unknown or whose files are missing, before the model is loaded. The
    tokenizer is the base model's.
    """
    device = resolve_device(execution.device)
    tokenizer = load_tokenizer(base)
    metrics: Metrics = {}
    results: list[BenchmarkResults] = []

    def how(task: str) -> Asked:
        return asked(config, task, micro_batch=execution.micro_batch, device=device)

    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        benchmarks = load_benchmarks(config, task_dir, Path(scratch), tokenizer, how)
        model = load_checkpoint(
            base, checkpoint, dtype=config.dtype, device=device, trust_remote_code=execution.trust_remote_code
        )
        for benchmark, result in zip(
            benchmarks, run_benchmarks(benchmarks, model, tokenizer, progress), strict=True
        ):
            metrics |= _metrics(benchmark, result, progress)
            for task, samples in result.samples.items():
                records.write_samples(out / SAMPLES / f"{task}.jsonl", samples)
            results.append(result)
    write_json(out / METRICS_FILE, {**metrics, PROTOCOL: records.protocol(config, results)})
    write_json(out / "aux" / "harness.json", records.execution(results))
    for message, times in records.warnings(results).most_common(1):
        progress.note(
            f"evaluate: lm-evaluation-harness warned {records.warnings(results).total()} times, {times} times: "
            f"{message} (all of them: aux/harness.json)"
        )
    return {"metrics": metrics, "items": records.items(results)}


def _metrics(benchmark: Benchmark, result: BenchmarkResults, progress: Progress) -> Metrics:
    found = {task: records.plain_metrics(values, progress, task) for task, values in result.metrics.items()}
    if benchmark.name != tydiqa.TYDIQA or found.keys() != set(tydiqa.TASKS):
        return found
    return {
        tydiqa.TYDIQA: tydiqa.averaged({task.removeprefix(tydiqa.PREFIX): found[task] for task in tydiqa.TASKS})
    }
