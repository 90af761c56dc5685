"""Ascent that runs away: the rule, for the training that meets it and for the report that tells of it afterwards.

A training begins and ends with a tenth of its steps each; what the loss of its negative tokens rose by is the
difference of the two means. Figures of the demo stand beside the threshold: with `t_max` 0.01 it ends as good as
`ignore`, with the published 0.25 no better than the base.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetting_core.config import ForgetConfig
from forgetting_core.errors import NumericalError

RUNAWAY_NATS = 3.0
"""Rise of the negative tokens' mean loss: they are then e³ ≈ 20 times less likely than when forgetting began.
In the demo it is 1.4 at t_max 0.01 and 8.2 at 0.25."""
END_SHARE = 0.1
"""Of the steps: how a training begins and ends is the mean over its first and last tenth."""


@dataclass(frozen=True)
class Rise:
    """Of the mean loss of negative tokens, in nats."""

    first: float
    last: float

    @property
    def runs_away(self) -> bool:
        """Beyond what forgetting is for."""
        return self.last - self.first > RUNAWAY_NATS

    def __str__(self) -> str:
        times = math.exp(min(self.last - self.first, 100))
        return (
            f"the mean loss of negative tokens rose from {self.first:.2f} to {self.last:.2f} nats, which makes "
            f"them {times:,.0f} times less likely; gradient ascent has no bound, and what they share with other "
            "tokens is forgotten with them"
        )


class Watch:
    """Judges a training from when it has two tenths of its steps behind it; at the last as the report does."""

    def __init__(self, config: object, steps: int) -> None:
        """`steps`: how many of the training forget something."""
        self._config = config if isinstance(config, ForgetConfig) and can_run_away(config) else None
        self._length = end_length(steps)
        self._told = False

    def judge(self, losses: Sequence[float], done: int) -> str | None:
        """What to tell the user of the negative `losses` (S,) so far, after `done` optimizer steps; only once.

        Raises `NumericalError` instead where the recipe asks for that (`stop_when_diverging`).
        """
        if self._config is None or self._told or len(losses) < 2 * self._length:
            return None
        found = rise(losses, self._length)
        if not found.runs_away:
            return None
        advice = less_forgetting(self._config)
        message = f"training: forgetting runs away at optimizer step {done}: {found}; {advice}"
        if self._config.stop_when_diverging:
            raise NumericalError(message)
        self._told = True
        return f"{message}; forget.stop_when_diverging would have stopped here"


def can_run_away(config: ForgetConfig) -> bool:
    """Whether it forgets by ascent: the bounded forms stop by themselves."""
    return config.negative == "ascent" and config.lambda_.t_max > 0


def rise(values: Sequence[float] | np.ndarray, length: int) -> Rise:
    """Between the ends, `length` steps each, of the losses (S,) in nats that were measured so far."""
    return Rise(*ends(values, length))


def end_length(steps: int) -> int:
    """How many a tenth of the steps are."""
    return max(1, int(END_SHARE * steps))


def ends(values: Sequence[float] | np.ndarray, length: int) -> tuple[float, float]:
    """Means over the first and the last `length` of the values."""
    return float(np.mean(values[:length])), float(np.mean(values[-length:]))


def less_forgetting(forgetting: ForgetConfig) -> str:
    """What to change in the recipe so that less is forgotten."""
    weight = forgetting.lambda_.t_max
    lower = f"lower forget.lambda.t_max (now {weight:g}; try {weight / 10:g})"
    bounded = forgetting.negative != "ascent"
    return lower if bounded else f"{lower}, or bound the forgetting with forget.negative: npo"
