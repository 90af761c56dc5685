"""Training curves: the points that fine-tunes left beside their checkpoints, thinned for drawing; their ends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forgetting_core.metrics_file import VALIDATION_CHANGE, VALIDATION_CHANGE_STDERR, VALIDATION_LOSS
from forgetting_core.report.benchmarks import MODELS
from forgetting_core.running_away import end_length, ends

CURVES = {
    "loss_positive": "loss of positive tokens (nats)",
    "loss_negative": "loss of negative tokens (nats)",
    VALIDATION_LOSS: "loss of held-out rows (nats)",
    "lambda": "λ, weight of forgetting",
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
}
"""What is shown of each optimizer step, in this order."""
READ = (*CURVES, VALIDATION_CHANGE, VALIDATION_CHANGE_STDERR)
POINTS = 60
"""Drawn of one curve at most; a longer one is drawn as the means of equally many neighbouring steps."""


@dataclass(frozen=True)
class Curve:
    """One quantity over a training. (P,) each, float64."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Thinned(Curve):
    """A curve whose points are means of neighbouring steps, and how far those reach."""

    low: np.ndarray
    high: np.ndarray


def read_curves(curves: Mapping[str, str | None]) -> dict[str, dict[str, Curve]]:
    """{model: {quantity: curve}} of those that have points, whole; quantities are those of `READ`."""
    found = {model_of(label): _read(lines) for label, lines in curves.items() if lines}
    return {model: found[model] for model in MODELS if model in found}


def model_of(label: str) -> str:
    """The model that a step trains, as the benchmark table calls it: `forget[sft]` trains `sft`."""
    return label.partition("[")[2].removesuffix("]") or label


def _read(lines: str) -> dict[str, Curve]:
    points = [json.loads(line) for line in lines.splitlines()]
    found = {}
    for name in READ:
        there = [point for point in points if name in point]
        if there:
            steps, values = (np.array([point[key] for point in there], np.float64) for key in ("step", name))
            found[name] = Curve(steps, values)
    return found


def thinned(curve: Curve) -> Thinned:
    """At most `POINTS` points, each the mean of as many neighbouring steps; the last may have fewer."""
    starts = np.arange(0, len(curve.steps), -(-len(curve.steps) // POINTS))
    counts = np.diff([*starts, len(curve.steps)])
    steps, values = (np.add.reduceat(array, starts) / counts for array in (curve.steps, curve.values))
    low, high = (extreme.reduceat(curve.values, starts) for extreme in (np.minimum, np.maximum))
    return Thinned(steps, values, low, high)


def ends_of(curve: Curve) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps."""
    return ends(curve.values, end_length(len(curve.values)))
