"""What went wrong in a run although every step succeeded: each fault is measured, and comes with what to change.

All rules look at the recipe's own model.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgetting_core.config import Recipe
from forgetting_core.data.pool import BAD_ROWS_FILE
from forgetting_core.evaluation.held_out import RowLosses, loss_change, mean_loss
from forgetting_core.metrics_file import VALIDATION_CHANGE, VALIDATION_CHANGE_STDERR, VALIDATION_LOSS
from forgetting_core.report.advice import (
    better_reference,
    forgetting_of,
    gentler,
    more_positives,
    same_format,
)
from forgetting_core.report.benchmarks import BASE
from forgetting_core.report.curves import Curve, ends_of
from forgetting_core.report.token_class import PUNCTUATION, SPECIAL, WHITE_SPACE
from forgetting_core.running_away import can_run_away, end_length, less_forgetting, rise

OWN = "forget"
ERRORS = 2.0
"""Standard errors of a difference that are more than chance: without one, of 44 runs one is told of.

Held-out losses of two models are of the same rows, so their difference is paired by row. After the training is
compared with before it, two measurements chosen beforehand; the lowest of many would be low by chance."""
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
    held_out: Mapping[str, RowLosses],
    curves: Mapping[str, Mapping[str, Curve]],
) -> list[RunWarning]:
    """The faults that can be seen; what was not measured (no curves, no held-out rows) is not judged.

    `statistics` of `count_everything`, `held_out` of `read_held_out`, `curves` of `read_curves`.
    """
    own = curves.get(OWN, {})
    return [
        *_running_away(recipe, own),
        *_held_out(recipe, held_out, own),
        *_positives(recipe, own),
        *_reference(recipe, statistics, held_out),
        *_format_tokens(recipe, statistics),
    ]


def skipped_rows(bad_rows: Mapping[str, int]) -> Iterator[RunWarning]:
    """One for each of `data.train` and `data.reference` of which rows were left out."""
    for name, count in bad_rows.items():
        if count:
            yield RunWarning(
                f"bad rows of data.{name} skipped",
                f"{count} rows cannot be used and were left out",
                f"mend them: they are in the split's artifact, aux/{BAD_ROWS_FILE}, with the reasons",
            )


def _running_away(recipe: Recipe, curves: Mapping[str, Curve]) -> Iterator[RunWarning]:
    forgetting = forgetting_of(recipe)
    if forgetting is None or not can_run_away(forgetting) or "loss_negative" not in curves:
        return
    losses = curves["loss_negative"].values
    found = rise(losses, end_length(len(losses)))
    if found.runs_away:
        yield RunWarning("negative loss running away", str(found), less_forgetting(forgetting))


def _held_out(
    recipe: Recipe, held_out: Mapping[str, RowLosses], curves: Mapping[str, Curve]
) -> Iterator[RunWarning]:
    """By the training's own measurements, which need no evaluation of the base, or else by the evaluations."""
    rise = _measured_change(curves) or _change(held_out, BASE, OWN)
    if rise is None or not rise.is_rise:
        return
    ignoring = _change(held_out, BASE, "ignore")
    if ignoring and ignoring.is_rise:
        less = more_positives(recipe.partition)
        advice = (
            f"`ignore`, which forgets nothing, rises likewise ({ignoring}): check whether the validation rows have "
            "the noise that the labels leave out, since then this is no fault"
        )
        advice += f"; otherwise {less}" if less else ""
    elif forgetting := forgetting_of(recipe):
        advice = less_forgetting(forgetting)
    else:
        advice = gentler("forget", recipe.forget)
    found = f"the mean loss of the validation rows rose over the training by {rise}"
    yield RunWarning("held-out loss rising", found, advice)


def _positives(recipe: Recipe, curves: Mapping[str, Curve]) -> Iterator[RunWarning]:
    curve = curves.get("loss_positive")
    if curve is None or len(curve.values) < FEWEST_STEPS:
        return
    first, last = ends_of(curve)
    error = _scatter(curve.values) * math.sqrt(2 / end_length(len(curve.values)))
    if first - last <= ERRORS * error:
        more = "train longer or faster (forget.epochs, forget.learning_rate)"
        forgetting = forgetting_of(recipe) if last > first else None
        yield RunWarning(
            "positives' gain below the noise",
            f"the mean loss of positive tokens went from {first:.3f} to {last:.3f} nats over the training, and by "
            f"chance alone such a difference has a standard error of {error:.3f}",
            less_forgetting(forgetting) if forgetting else more,
        )


def _reference(
    recipe: Recipe, statistics: Mapping[str, Any], held_out: Mapping[str, RowLosses]
) -> Iterator[RunWarning]:
    """On the validation rows if it was evaluated there, else on the training rows, which it has not seen either.

    There by the median: a good reference finds noise very unlikely, and those few tokens make the mean.
    """
    if recipe.forget.objective == "sft" or recipe.partition.labelling != "influence":
        return
    change = _change(held_out, BASE, "reference")
    median = statistics["median_influence"]
    advice = better_reference(recipe)
    if change:
        if change.is_fall:
            return
        found = (
            f"from the base to the reference the mean loss of the validation rows changes by {change}, which is no "
            f"fall beyond {ERRORS:g} standard errors; the median influence of the training split is {median:.3f}"
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
    """Not of `oracle_noise`: then it is the data that say what is negative."""
    fewer_negatives = more_positives(recipe.partition)
    if recipe.forget.objective == "sft" or fewer_negatives is None or not statistics["negative_tokens"]:
        return
    parts = {part["class"]: part for part in statistics["by_class"] if part["class"] in FORMAT}
    negative = sum(part["negative_tokens"] for part in parts.values()) / statistics["negative_tokens"]
    overall = sum(part["tokens"] for part in parts.values()) / statistics["tokens"]
    if negative > DOMINANT_SHARE and negative > DOMINANT_EXCESS * overall:
        most = max(parts, key=lambda name: parts[name]["negative_tokens"])
        by_reference = recipe.partition.labelling == "influence"
        yield RunWarning(
            "format tokens dominate the negatives",
            f"{negative:.0%} of the negative tokens are punctuation, white space or end of text (most of all "
            f"{FORMAT[most]}), and {overall:.0%} of all response tokens; the model learns to forget the form of an "
            "answer, not its content",
            f"{fewer_negatives}, or {same_format(recipe)}" if by_reference else fewer_negatives,
        )


@dataclass(frozen=True)
class _Change:
    """Of a held-out loss, in nats per token."""

    before: float
    after: float
    difference: float
    stderr: float
    """Of the difference, paired by row."""

    @property
    def is_rise(self) -> bool:
        """Beyond chance."""
        return self.difference > ERRORS * self.stderr

    @property
    def is_fall(self) -> bool:
        """Beyond chance."""
        return self.difference < -ERRORS * self.stderr

    def __str__(self) -> str:
        return f"{self.difference:.3f} ± {self.stderr:.3f} nats ({self.before:.3f} → {self.after:.3f})"


def _change(held_out: Mapping[str, RowLosses], before: str, after: str) -> _Change | None:
    """From one model to another; None when one was not measured or a single row has no error."""
    if before not in held_out or after not in held_out:
        return None
    difference, stderr = loss_change(held_out[before], held_out[after])
    if stderr is None:
        return None
    first, last = (mean_loss(held_out[model])["loss"] for model in (before, after))
    return _Change(first, last, difference, stderr)


def _measured_change(curves: Mapping[str, Curve]) -> _Change | None:
    """From before the training to after it; None when that was not measured or a single row has no error."""
    if VALIDATION_CHANGE_STDERR not in curves:
        return None
    losses = curves[VALIDATION_LOSS].values
    change, stderr = (float(curves[name].values[-1]) for name in (VALIDATION_CHANGE, VALIDATION_CHANGE_STDERR))
    return _Change(float(losses[0]), float(losses[-1]), change, stderr)


def _scatter(values: np.ndarray) -> float:
    """Standard deviation of a step's value around the trend, from successive differences.

    Von Neumann, Kent, Bellinson and Hart, The mean square successive difference, 1941.
    """
    return float(np.sqrt(np.square(np.diff(values)).mean() / 2))
