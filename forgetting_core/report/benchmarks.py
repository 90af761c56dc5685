"""The benchmark table: every model's metrics side by side, with standard errors and the difference against base."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetting_core.errors import InputError
from forgetting_core.evaluation import DIVERSITY, HELD_OUT, METRICS_FILE, PROTOCOL
from forgetting_core.evaluation.held_out import SAMPLES_FILE, RowLosses, read_row_losses

BASE = "base"
MODELS = (BASE, "reference", "sft", "ignore", "random", "npo", "forget")
"""The order of the columns."""
STDERR = "_stderr"
MEANINGS = {
    (HELD_OUT, "loss"): "nats, lower is better",
    (DIVERSITY, "distinct_1"): "higher is more diverse",
    (DIVERSITY, "distinct_2"): "higher is more diverse",
    (DIVERSITY, "distinct_3"): "higher is more diverse",
    (DIVERSITY, "self_bleu"): "lower is more diverse",
    (DIVERSITY, "overlap"): "lower is more diverse",
    (DIVERSITY, "length"): "tokens",
    (DIVERSITY, "empty"): "share of answers",
    (DIVERSITY, "looping"): "share of answers",
}
"""What of our own metrics does not speak for itself."""

Metrics = dict[str, dict[str, float]]


def read_metrics(folders: Mapping[str, Sequence[Path]]) -> dict[str, Metrics]:
    """{model: {task: {metric: value}}} in the order of the table; models of other names come last, by name.

    `folders` are the evaluations of each model.
    """
    order = {name: place for place, name in enumerate(MODELS)}
    names = sorted(folders, key=lambda name: (order.get(name, len(order)), name))
    return {
        name: {task: values for folder in folders[name] for task, values in metrics_of(folder).items()}
        for name in names
    }


def read_held_out(folders: Mapping[str, Sequence[Path]]) -> dict[str, RowLosses]:
    """{model: the losses of its validation rows} of the models that have them; `folders` as of `read_metrics`."""
    return {
        model: read_row_losses(folder)
        for model, evaluations in folders.items()
        for folder in evaluations
        if (folder / SAMPLES_FILE).exists()
    }


def metrics_of(folder: Path) -> Metrics:
    """{task: {metric: value}} of an artifact of `evaluate`. Raises `InputError` for a folder that is none."""
    path = folder / METRICS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected the metrics of an evaluation: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object of metrics by task, found {type(found).__name__}")
    return {task: values for task, values in found.items() if task != PROTOCOL}


def benchmark_table(metrics: Mapping[str, Metrics]) -> list[dict[str, Any]]:
    """A line per task and metric: `{"task", "metric", "models": {model: {"value", "stderr", "difference"}}}`.

    A model that lacks the metric is left out of `models`; `stderr` is None where the harness has none;
    `difference` is value − value of base, None without base, for base itself and for counts (integers).
    """
    lines = sorted(
        {
            (task, name)
            for tasks in metrics.values()
            for task, values in tasks.items()
            for name in values
            if not _is_stderr(name, values)
        }
    )
    table = []
    for task, name in lines:
        base = metrics.get(BASE, {}).get(task, {}).get(name)
        cells = {}
        for model, tasks in metrics.items():
            values = tasks.get(task, {})
            if name in values:
                cells[model] = {
                    "value": values[name],
                    "stderr": values.get(name + STDERR),
                    "difference": None if model == BASE else _difference(values[name], base),
                }
        table.append({"task": task, "metric": name, "models": cells})
    return table


def _difference(value: float, base: float | None) -> float | None:
    return None if base is None or isinstance(base, int) else value - base


def _is_stderr(name: str, values: Mapping[str, float]) -> bool:
    return name.endswith(STDERR) and name.removesuffix(STDERR) in values
