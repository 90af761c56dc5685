"""The step `evaluate`: one model, its benchmarks and its held-out loss, one `metrics.json`."""

import tempfile
from pathlib import Path
from typing import Any

from forgetting_core.config import EvaluateConfig, ExecutionConfig
from forgetting_core.errors import InputError
from forgetting_core.evaluation import records
from forgetting_core.evaluation.harness import load_benchmarks, run_benchmarks
from forgetting_core.evaluation.held_out import held_out_loss
from forgetting_core.json_files import write_json
from forgetting_core.models import load_checkpoint, load_tokenizer, resolve_device
from forgetting_core.progress import Progress

METRICS_FILE = "metrics.json"
HELD_OUT = "held_out"
"""The entry of `metrics.json` for the validation rows."""


def evaluate_model(
    config: EvaluateConfig,
    *,
    base: Path,
    checkpoint: Path | None,
    validation: Path | None,
    task_dir: Path | None,
    out: Path,
    execution: ExecutionConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Write `metrics.json`: {task: {metric: value, metric_stderr: value}}, `{}` when nothing was asked for.

    `checkpoint` is a full model or an adapter of `base`; None evaluates the base itself. `validation` is a split
    folder: its mean loss per response token in nats becomes the entry `held_out`. `task_dir` holds the benchmarks'
    files (`local_tasks`); None lets the harness fetch them from the hub. Into `out/aux` go `protocol.json` and
    `samples-TASK.jsonl`, an item per line. Returns `{"metrics": …, "items": n}`.

    Raises `InputError` for tasks that are unknown or whose files are missing, before the model is loaded, and
    `NumericalError` for a held-out loss that is not finite. The tokenizer is the base model's.
    """
    if HELD_OUT in config.tasks:
        raise InputError(f"evaluate.tasks: {HELD_OUT!r} names the loss on validation rows; rename the task")
    if not config.tasks and validation is None:
        write_json(out / METRICS_FILE, {})
        return {"metrics": {}, "items": 0}
    metrics: dict[str, dict[str, float]] = {}
    items = 0
    with tempfile.TemporaryDirectory(prefix="evaluate-") as scratch:
        benchmarks = load_benchmarks(config, task_dir, Path(scratch)) if config.tasks else None
        device = resolve_device(execution.device)
        model = load_checkpoint(base, checkpoint, dtype=config.dtype, device=device)
        if benchmarks is not None:
            results = run_benchmarks(
                benchmarks,
                config,
                model,
                load_tokenizer(base),
                micro_batch=execution.micro_batch,
                progress=progress,
            )
            for task, values in results.metrics.items():
                metrics[task] = records.plain_metrics(values, progress, task)
            for task, samples in results.samples.items():
                items += records.evaluated_items(samples)
                records.write_samples(out / "aux" / f"samples-{task}.jsonl", samples)
            records.write_protocol(out / "aux" / "protocol.json", config, results)
            if results.warnings:
                message, _ = results.warnings.most_common(1)[0]
                progress.note(
                    f"evaluate: lm-evaluation-harness warned {results.warnings.total()} times, most often: "
                    f"{message} (all of them: aux/protocol.json)"
                )
        if validation is not None:
            metrics[HELD_OUT] = held_out_loss(
                model, validation, micro_batch=execution.micro_batch, progress=progress
            )
    write_json(out / METRICS_FILE, metrics)
    return {"metrics": metrics, "items": items}
