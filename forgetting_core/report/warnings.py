"""What went wrong in a run although every step succeeded: each fault is measured, and comes with what to change.

All rules look at the recipe's own model. Figures of the demo stand beside the thresholds: with `t_max` 0.01 it ends
as good as `ignore`, with the published 0.25 no better than the base.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetting_core.config import ForgetConfig, Recipe
from forgetting_core.evaluation import HELD_OUT
from forgetting_core.metrics_file import VALIDATION_LOSS, VALIDATION_STDERR
from forgetting_core.report.benchmarks import BASE, STDERR, Metrics
from forgetting_core.report.curves import Curve, end_length, ends
from forgetting_core.report.token_class import PUNCTUATION, SPECIAL, WHITE_SPACE

OWN = "forget"
RUNAWAY_NATS = 3.0
"""Rise of the negative tokens' mean loss: they are then e³ ≈ 20 times less likely than when forgetting began.
In the demo it is 1.4 at t_max 0.01 and 8.2 at 0.25."""
ERRORS = 2.0
"""Standard errors of a difference that are more than chance, at about 95 %.

For held-out losses they are those of two independent samples. Both are of the same rows, so the true error is
smaller, and the rule careful."""
FEWEST_STEPS = 20
"""With fewer a tenth of the training is a single step, and its noise hides any gain of so short a training."""
DOMINANT_SHARE = 0.5
"""Of the negatives that one kind of token makes up: then forgetting is mostly about it."""
DOMINANT_EXCESS = 1.5
"""Times its share of all response tokens, which it would have among negatives drawn at random."""
FORMAT = {PUNCTUATION: "punctuation", WHITE_SPACE: "white space and format", SPECIAL: "special and end of text"}


@dataclass(frozen=True)
class RunWarning:
    """One fault of a run."""

    kind: str
    found: str
    """What was measured, with figures."""
    advice: str
    """What to change in the recipe."""


def find_warnings(
    recipe: Recipe,
    statistics: Mapping[str, Any],
    models: Mapping[str, Metrics],
    curves: Mapping[str, Mapping[str, Curve]],
) -> list[RunWarning]:
    """The faults that can be seen; what was not measured (no curves, no held-out rows) is not judged.

    `statistics` of `count_everything`, `models` with their metrics, `curves` of `read_curves`.
    """
    own = curves.get(OWN, {})
    return [
        *_running_away(recipe, own),
        *_held_out(recipe, models, own),
        *_positives(recipe, own),
        *_reference(recipe, statistics, models),
        *_format_tokens(recipe, statistics),
    ]


def _running_away(recipe: Recipe, curves: Mapping[str, Curve]) -> Iterator[RunWarning]:
    """Ascent only: the bounded forms stop by themselves."""
    forgetting = _forgetting(recipe)
    if forgetting is None or forgetting.negative != "ascent" or "loss_negative" not in curves:
        return
    first, last = ends(curves["loss_negative"])
    if last - first > RUNAWAY_NATS:
        yield RunWarning(
            "negative loss running away",
            f"the mean loss of negative tokens rose from {first:.2f} to {last:.2f} nats, which makes them "
            f"{math.exp(min(last - first, 100)):,.0f} times less likely; gradient ascent has no bound, and what "
            "they share with other tokens is forgotten with them",
            _less(forgetting),
        )


def _held_out(recipe: Recipe, models: Mapping[str, Metrics], curves: Mapping[str, Curve]) -> Iterator[RunWarning]:
    if VALIDATION_STDERR in curves:
        losses, errors = curves[VALIDATION_LOSS], curves[VALIDATION_STDERR].values
        lowest = int(losses.values.argmin())
        rise = _rise((losses.values[lowest], errors[lowest]), (losses.values[-1], errors[-1]))
        since = f"its lowest after optimizer step {losses.steps[lowest]:.0f}"
    else:
        rise = _rise(_loss_of(models, BASE), _loss_of(models, OWN))
        since = "the base model's"
    if rise is None:
        return
    ignoring = _rise(_loss_of(models, BASE), _loss_of(models, "ignore"))
    if ignoring:
        advice = (
            f"`ignore`, which forgets nothing, rises likewise ({ignoring}): raise partition.rho, or check whether "
            "the validation rows have the noise that the labels leave out, since then this is no fault"
        )
    elif forgetting := _forgetting(recipe):
        advice = _less(forgetting)
    else:
        advice = "lower forget.epochs or forget.learning_rate"
    yield RunWarning("held-out loss rising", f"the loss of the validation rows is above {since}: {rise}", advice)


def _positives(recipe: Recipe, curves: Mapping[str, Curve]) -> Iterator[RunWarning]:
    curve = curves.get("loss_positive")
    if curve is None or len(curve.values) < FEWEST_STEPS:
        return
    first, last = ends(curve)
    error = _scatter(curve.values) * math.sqrt(2 / end_length(curve))
    if first - last <= ERRORS * error:
        more = "train longer or faster (forget.epochs, forget.learning_rate)"
        forgetting = _forgetting(recipe) if last > first else None
        yield RunWarning(
            "positives' gain below the noise",
            f"the mean loss of positive tokens went from {first:.3f} to {last:.3f} nats over the training, and by "
            f"chance alone such a difference has a standard error of {error:.3f}",
            _less(forgetting) if forgetting else more,
        )


def _reference(
    recipe: Recipe, statistics: Mapping[str, Any], models: Mapping[str, Metrics]
) -> Iterator[RunWarning]:
    """On the validation rows if it was evaluated there, else on the training rows, which it has not seen either.

    There by the median: a good reference finds noise very unlikely, and those few tokens make the mean.
    """
    if recipe.forget.objective == "sft" or recipe.partition.labelling != "influence":
        return
    base, reference = _loss_of(models, BASE), _loss_of(models, "reference")
    median = statistics["median_influence"]
    advice = (
        "train the reference on more or cleaner rows (split.reference_rows, data.reference) or more gently "
        "(reference.epochs, reference.learning_rate)"
    )
    if base and reference:
        if reference[0] < base[0]:
            return
        found = (
            f"the loss of the validation rows is {_shown(reference)} nats under the reference and {_shown(base)} "
            f"under the base; the median influence of the training split is {median:.3f}"
        )
        advice = (
            "if the validation rows are as noisy as the training rows, a good reference loses there, and nothing "
            f"is wrong: compare the two on a benchmark; otherwise {advice}"
        )
    elif median <= 0:
        found = (
            "half of the training split's response tokens are no likelier under the reference than under the base "
            f"(median influence {median:.3f} nats), so influence is no sign of what is worth learning"
        )
    else:
        return
    yield RunWarning("reference no better than the base", found, advice)


def _format_tokens(recipe: Recipe, statistics: Mapping[str, Any]) -> Iterator[RunWarning]:
    if recipe.forget.objective == "sft" or not statistics["negative_tokens"]:
        return
    parts = {part["class"]: part for part in statistics["by_class"] if part["class"] in FORMAT}
    negative = sum(part["negative_tokens"] for part in parts.values()) / statistics["negative_tokens"]
    overall = sum(part["tokens"] for part in parts.values()) / statistics["tokens"]
    if negative > DOMINANT_SHARE and negative > DOMINANT_EXCESS * overall:
        most = max(parts, key=lambda name: parts[name]["negative_tokens"])
        yield RunWarning(
            "format tokens dominate the negatives",
            f"{negative:.0%} of the negative tokens are punctuation, white space or end of text (most of all "
            f"{FORMAT[most]}), and {overall:.0%} of all response tokens; the model learns to forget the form of an "
            "answer, not its content",
            "raise partition.rho, or give the reference data of the same format (data.reference, data.template)",
        )


def _forgetting(recipe: Recipe) -> ForgetConfig | None:
    """The objective, if it forgets anything."""
    own = recipe.forget
    return own if isinstance(own, ForgetConfig) and own.lambda_.t_max > 0 else None


def _less(forgetting: ForgetConfig) -> str:
    """What to change so that less is forgotten."""
    weight = forgetting.lambda_.t_max
    lower = f"lower forget.lambda.t_max (now {weight:g}; try {weight / 10:g})"
    bounded = forgetting.negative != "ascent"
    return lower if bounded else f"{lower}, or bound the forgetting with forget.negative: npo"


@dataclass(frozen=True)
class _Rise:
    """From one mean ± standard error to another."""

    before: tuple[float, float]
    after: tuple[float, float]

    def __str__(self) -> str:
        return f"{_shown(self.before)} → {_shown(self.after)} nats"


def _rise(before: tuple[float, float] | None, after: tuple[float, float] | None) -> _Rise | None:
    """The rise if there is one beyond chance."""
    if before is None or after is None:
        return None
    beyond = after[0] - before[0] > ERRORS * math.hypot(before[1], after[1])
    return _Rise(before, after) if beyond else None


def _loss_of(models: Mapping[str, Metrics], model: str) -> tuple[float, float] | None:
    """Held-out loss and its standard error; None when it was not measured or has no error."""
    values = models.get(model, {}).get(HELD_OUT, {})
    return (values["loss"], values["loss" + STDERR]) if "loss" + STDERR in values else None


def _shown(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f} ± {value[1]:.3f}"


def _scatter(values: np.ndarray) -> float:
    """Standard deviation of a step's value around the trend, from successive differences.

    Von Neumann, Kent, Bellinson and Hart, The mean square successive difference, 1941.
    """
    return float(np.sqrt(np.square(np.diff(values)).mean() / 2))
