"""Numbers of a training that must be finite: what is checked, and what is said when one is not.

A loss and the norm of the gradient are looked at in every optimizer step, since they are known anyway; the weights
where they are about to be written, and to tell their own fault from that of the rows that meet it.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from forgetting_core.errors import NumericalError

GENTLER = "lower the learning rate or forget.lambda.t_max, or use float32"
MOST_ROWS = 24
"""Named in a message; a published optimizer step has as many."""


def require_finite(value: float, what: str, step: int, rows: np.ndarray, model: nn.Module) -> None:
    """Raises `NumericalError` for a `value` in the optimizer step after `step` completed ones, over `rows`.

    Where the weights are the cause, it blames them.
    """
    if not math.isfinite(value):
        require_finite_tensors(model.named_parameters(), f"after optimizer step {step}")
        raise NumericalError(
            f"training: the {what} of optimizer step {step + 1} is {value} (rows {listed(rows)}); {GENTLER}"
        )


def require_finite_tensors(named: Iterable[tuple[str, torch.Tensor]], when: str) -> None:
    """Raises `NumericalError` naming the first one that is not; of a sharded one this rank's part is checked."""
    for name, value in named:
        part = (value.to_local() if isinstance(value, DTensor) else value).detach()
        if part.numel() and not math.isfinite(torch.linalg.vector_norm(part, ord=math.inf)):
            raise NumericalError(f"training: the weights are not finite {when} ({name}); {GENTLER}")


def listed(rows: np.ndarray | Sequence[int]) -> str:
    """Their places in the split, with the number of those that are not named."""
    named = ", ".join(map(str, rows[:MOST_ROWS]))
    return named if len(rows) <= MOST_ROWS else f"{named} and {len(rows) - MOST_ROWS} more"
