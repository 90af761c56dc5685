"""The forgetting objective and its λ (design §6; arXiv 2508.04329, section 3).

L = Σ₊ loss / N₊ − λ · Σ₋ loss / N₋ over one optimizer step, written as one sum of signed token weights times token
losses, so that it does not depend on how the step is cut into micro-batches.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from forgetting_core.config import ForgetConfig, LambdaConfig
from forgetting_core.training_data import AnyObjective

SMALLEST_LOSS = 2.0**-23
"""nats; about the smallest loss that float32 can tell from 0"""


@dataclass(frozen=True)
class TokenCounts:
    """Denominators of the two means."""

    positive: float
    negative: float

    @classmethod
    def of(cls, sign: torch.Tensor, scale: float = 1.0) -> "TokenCounts":
        """Counts of +1 and −1 in `sign`, each times `scale`."""
        return cls(float((sign > 0).sum()) * scale, float((sign < 0).sum()) * scale)


def forget_weight(config: LambdaConfig, step: int, *, total: int, per_epoch: int) -> float:
    """λ before optimizer step `step` (0-based: the number of completed ones) of `total`.

    `published` starts again at 0 in each epoch while `total` counts all epochs, and never adds t_min.
    """
    span = config.t_max - config.t_min
    if config.schedule == "linear":
        return config.t_min + span * step / total
    if config.schedule == "cosine":
        return config.t_min + span * (1 - math.cos(math.pi * step / total)) / 2
    if config.schedule == "published":
        return span * (step % per_epoch) / total
    return config.t_max


def forgetting_loss(loss: torch.Tensor, sign: torch.Tensor, counts: TokenCounts, lambda_: float) -> torch.Tensor:
    """Σ weight · loss, a scalar; weight is 1/N₊ where `sign` is +1 and −λ/N₋ where it is −1.

    `loss` (N,) in nats; `sign` (N,). An empty side contributes 0 and the gradient stays connected.
    """
    positive = 1 / counts.positive if counts.positive else 0.0
    negative = -lambda_ / counts.negative if counts.negative else 0.0
    zero, *sides = loss.new_tensor([0.0, positive, negative])
    weight = torch.where(sign > 0, sides[0], torch.where(sign < 0, sides[1], zero))
    return (weight * loss).sum()


@dataclass(frozen=True)
class TokenObjective:
    """The objective over the N chosen tokens of a micro-batch: a sum, in which each of them has its share."""

    config: AnyObjective
    sign: torch.Tensor
    """(N,): +1 learn, −1 forget"""
    counts: TokenCounts
    lambda_: float
    loss_base: torch.Tensor | None = None
    """(N,) in nats, for bounded forgetting"""

    def __call__(self, loss: torch.Tensor, tokens: slice) -> torch.Tensor:
        """The share, a scalar, of `tokens` (some of the N) with their `loss` in nats."""
        sign = self.sign[tokens]
        if isinstance(self.config, ForgetConfig) and self.config.negative == "npo":
            assert self.loss_base is not None  # read with the data
            loss = npo_surrogate(loss, self.loss_base[tokens], sign, self.config.beta)
        elif isinstance(self.config, ForgetConfig) and self.config.negative == "unlikelihood":
            loss = unlikelihood_surrogate(loss, sign)
        return forgetting_loss(loss, sign, self.counts, self.lambda_)


def npo_surrogate(loss: torch.Tensor, loss_base: torch.Tensor, sign: torch.Tensor, beta: float) -> torch.Tensor:
    """`loss` with its negative tokens replaced by their bounded form, to be weighted like plain losses.

    Token-level negative preference optimisation (arXiv 2404.05868, per token): −loss becomes
    (2/β)·softplus(β·(loss_base − loss)); its gradient is that of −loss times 2σ(β·(loss_base − loss)).
    `loss` and `loss_base` (N,) in nats.
    """
    bounded = -(2 / beta) * F.softplus(beta * (loss_base - loss))
    return torch.where(sign < 0, bounded, loss)


def unlikelihood_surrogate(loss: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """`loss` with its negative tokens replaced by log(1 − p), p = e^−loss, to be weighted like plain losses.

    Token-level unlikelihood (arXiv 1908.04319) minimises −log(1 − p), which fades as p does: its gradient is that
    of −loss times p/(1 − p). `loss` (N,) in nats.
    """
    return torch.where(sign < 0, log_complement(loss), loss)


def log_complement(loss: torch.Tensor) -> torch.Tensor:
    """log(1 − e^−loss), exact at both ends; below a loss of `SMALLEST_LOSS` nats it goes on as a straight line.

    Otherwise a token that the model is sure of (p rounds to 1) had an infinite value and no gradient but NaN.
    """
    # each form where it is accurate; elsewhere its argument stays in range, so that its gradient is 0 there, no NaN
    half = math.log(2)
    sure = math.log(-math.expm1(-SMALLEST_LOSS)) + (loss - SMALLEST_LOSS) / math.expm1(SMALLEST_LOSS)
    likely = torch.log(-torch.expm1(-loss.clamp(SMALLEST_LOSS, half)))
    unlikely = torch.log1p(-torch.exp(-loss.clamp(min=half)))
    return torch.where(loss < SMALLEST_LOSS, sure, torch.where(loss < half, likely, unlikely))
