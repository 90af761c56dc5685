"""The comparison itself: every metric of every model over the seeds, and paired differences against one of them.

Plain JSON data, the same bytes for the same evaluations.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.stats import sem

from forgetting_core.comparison.items import Column, Evaluation, Items
from forgetting_core.comparison.paired import Difference, paired_difference
from forgetting_core.errors import InputError
from forgetting_core.evaluation import is_shown

Evaluations = Mapping[int, Mapping[str, Evaluation]]
"""{seed: {model: everything it was evaluated on}}; every seed has the same models."""


def merged(parts: list[Evaluation]) -> Evaluation:
    """A model's evaluations as one."""
    return Evaluation(
        {task: values for part in parts for task, values in part.metrics.items()},
        {column: items for part in parts for column, items in part.items.items()},
    )


def compare(evaluations: Evaluations, against: str) -> dict[str, Any]:
    """`{"against", "seeds", "models", "lines"}`, a line per task and metric.

    A line is `{"task", "metric", "models": {model: {"mean", "stderr", "per_seed"}}, "differences": {model: …}}`.
    `stderr` is over items and seeds where there are items, else over seeds, and None for a single draw.
    `differences` are those of `paired_difference` against the model `against`, with the number of `items`; they are
    left out where a metric is no mean over items, or where a model was not evaluated on it.

    Raises `InputError` when two models of a seed were asked different items.
    """
    seeds = sorted(evaluations)
    models = list(evaluations[seeds[0]])
    if against not in models:
        raise InputError(f"nothing to compare with: {against!r} is none of the models {', '.join(models)}")
    columns = sorted(
        {
            (task, metric)
            for of_models in evaluations.values()
            for evaluation in of_models.values()
            for task, values in evaluation.metrics.items()
            for metric in values
            if is_shown(metric, values)
        }
    )
    lines = [_line(column, evaluations, models, against) for column in columns]
    return {"against": against, "seeds": seeds, "models": models, "lines": lines}


def _line(column: Column, evaluations: Evaluations, models: list[str], against: str) -> dict[str, Any]:
    task, metric = column
    cells: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    items = {model: {seed: of[model].items.get(column) for seed, of in evaluations.items()} for model in models}
    for model in models:
        values = {seed: of[model].metrics.get(task, {}).get(metric) for seed, of in evaluations.items()}
        per_seed = {seed: value for seed, value in values.items() if value is not None}
        if len(per_seed) < len(values):
            continue
        cells[model] = {
            "mean": float(np.mean(list(per_seed.values()))),
            "stderr": _stderr(per_seed, _complete(items[model])),
            "per_seed": per_seed,
        }
        ours, theirs = _complete(items[model]), _complete(items[against])
        if model != against and ours and theirs:
            _check_pairs(column, model, against, ours, theirs)
            if common := _common(ours, theirs):
                difference = _paired(ours, {seed: items.values for seed, items in theirs.items()})
                differences[model] = {**asdict(difference), "items": common}
    return {"task": task, "metric": metric, "models": cells, "differences": differences}


def _complete(items: Mapping[int, Items | None]) -> dict[int, Items] | None:
    found = {seed: of_seed for seed, of_seed in items.items() if of_seed is not None}
    return found if len(found) == len(items) else None


def _common(ours: Mapping[int, Items], theirs: Mapping[int, Items]) -> int:
    """The fewest items over the seeds that have a value on both sides."""
    return min(int((~np.isnan(items.values + theirs[seed].values)).sum()) for seed, items in ours.items())


def _stderr(per_seed: Mapping[int, float], items: Mapping[int, Items] | None) -> float | None:
    if items is not None:
        nothing = {seed: np.zeros(len(of_seed.values)) for seed, of_seed in items.items()}
        return _paired(items, nothing).stderr
    return float(sem(list(per_seed.values()))) if len(per_seed) > 1 else None


def _check_pairs(
    column: Column, model: str, against: str, ours: Mapping[int, Items], theirs: Mapping[int, Items]
) -> None:
    for seed, of_seed in ours.items():
        if of_seed.asked != theirs[seed].asked:
            raise InputError(
                f"{' '.join(column)}, seed {seed}: {model} and {against} were asked different items, so they cannot"
                " be paired; evaluate both with the same recipe"
            )


def _paired(ours: Mapping[int, Items], theirs: Mapping[int, np.ndarray]) -> Difference:
    return paired_difference(
        {seed: items.values for seed, items in ours.items()},
        theirs,
        weights={seed: items.weights for seed, items in ours.items()},
        same_items=len({items.asked for items in ours.values()}) == 1,
    )
