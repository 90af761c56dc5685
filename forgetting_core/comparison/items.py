"""What a model scored on each item of an evaluation, from the samples stored beside its metrics."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forgetting_core.evaluation import SAMPLES
from forgetting_core.evaluation.tydiqa import TYDIQA
from forgetting_core.json_files import read_json_lines
from forgetting_core.report.benchmarks import metrics_of

Column = tuple[str, str]
"""(task, metric)"""


@dataclass(frozen=True)
class Items:
    """One metric, item by item; the weighted mean is the metric."""

    values: np.ndarray
    """(items,) float64, NaN where the metric is not defined"""
    weights: np.ndarray
    """(items,) float64"""
    asked: str
    """Digest of what was asked, in which order: equal for models that can be paired."""


@dataclass(frozen=True)
class Evaluation:
    """One model on one task, or on several that are one benchmark."""

    metrics: dict[str, dict[str, float]]
    """{task: {metric: value, metric_stderr: value}}"""
    items: dict[Column, Items]
    """Of those metrics that are a mean over items."""


def read_evaluation(folder: Path) -> Evaluation:
    """The artifact of a step `evaluate`. Raises `InputError` for a file that is none of an evaluation."""
    metrics = metrics_of(folder)
    samples = {path.stem: list(read_json_lines(path)) for path in sorted((folder / SAMPLES).glob("*.jsonl"))}
    items = {}
    for task, values in metrics.items():
        files = [samples[task]] if task in samples else list(samples.values())
        for metric, value in values.items():
            if (found := _items(files, metric, value, languages_count_alike=task == TYDIQA)) is not None:
                items[task, metric] = found
    return Evaluation(metrics, items)


def _items(
    files: list[list[dict[str, Any]]], metric: str, value: float, *, languages_count_alike: bool
) -> Items | None:
    """The items whose mean `value` is, NaN where the metric is not defined; None for a metric that is no mean."""
    chosen = [[line for line in lines if _is_of(line, metric)] for lines in files]
    if not chosen or not all(chosen):
        return None
    lines = [line for file in chosen for line in file]
    values = np.array([_value(line, metric) for line in lines], np.float64)
    defined = ~np.isnan(values)
    if not defined.any():
        return None
    weights = np.array([line.get("weight", 1.0) for line in lines], np.float64)
    if languages_count_alike:
        weights = np.concatenate([np.full(len(file), 1 / len(file)) for file in chosen])
    mean = np.average(values[defined], weights=weights[defined])
    return Items(values, weights, _digest(lines)) if np.isclose(mean, value, rtol=1e-6, atol=1e-9) else None


def _is_of(line: Mapping[str, Any], metric: str) -> bool:
    """Whether the line is of the filter that `metric` names, where a task has several."""
    _, dot, filter_ = metric.partition(".")
    return not dot or metric in line["metrics"] or line.get("filter") == filter_


def _value(line: Mapping[str, Any], metric: str) -> float:
    name, _, _ = metric.partition(".")
    found = line["metrics"].get(metric, line["metrics"].get(name))
    return float(found) if isinstance(found, int | float) else math.nan


def _digest(lines: list[dict[str, Any]]) -> str:
    asked = [[line["doc_id"], line.get("doc")] for line in lines]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
