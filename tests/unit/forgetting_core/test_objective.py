"""The objective against its plain formula in float64, and λ over training."""

import math

import pytest
import torch

from forgetting_core.config import LambdaConfig
from forgetting_core.objective import (
    SMALLEST_LOSS,
    TokenCounts,
    forget_weight,
    forgetting_loss,
    npo_surrogate,
    unlikelihood_surrogate,
)

EXTREME = [0.0, 1e-6, 1e-3, 0.5, math.log(2), 3.0, 50.0, 200.0]
"""Losses in nats: of a token that the model is sure of, up to one that it never says."""
NEGATIVE = torch.full((len(EXTREME),), -1)


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    loss = torch.rand(50, generator=generator, dtype=torch.float64) * 8
    sign = torch.randint(-1, 2, (50,), generator=generator)
    return loss.requires_grad_(), sign


@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradient_are_those_of_the_two_means(seed: int) -> None:
    loss, sign = random_case(seed)
    found = forgetting_loss(loss, sign, TokenCounts.of(sign), 0.3)
    plain = loss[sign == 1].mean() - 0.3 * loss[sign == -1].mean()
    assert torch.allclose(found, plain, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, loss)
    (expected,) = torch.autograd.grad(plain, loss)
    assert torch.allclose(gradient, expected, rtol=1e-12, atol=0)


def test_micro_batches_add_up_to_the_whole_step() -> None:
    loss, sign = random_case(7)
    counts = TokenCounts.of(sign)
    parts = [
        forgetting_loss(loss[cut], sign[cut], counts, 0.2) for cut in (slice(0, 3), slice(3, 31), slice(31, 50))
    ]
    assert torch.allclose(sum(parts), forgetting_loss(loss, sign, counts, 0.2), rtol=1e-13)


@pytest.mark.parametrize("side", [1, -1, 0])
def test_an_empty_side_contributes_nothing_and_keeps_the_gradient(side: int) -> None:
    loss, _ = random_case(1)
    sign = torch.full((50,), side)
    found = forgetting_loss(loss, sign, TokenCounts.of(sign), 0.5)
    (gradient,) = torch.autograd.grad(found, loss)
    expected = {1: 1 / 50, -1: -0.5 / 50, 0: 0.0}[side]
    assert torch.allclose(gradient, torch.full_like(loss, expected))
    assert math.isfinite(float(found.detach()))


def test_no_tokens_at_all_is_zero_not_nan() -> None:
    loss = torch.zeros(0, requires_grad=True)
    found = forgetting_loss(loss, torch.zeros(0), TokenCounts(0, 0), 0.5)
    found.backward()
    assert float(found.detach()) == 0


def test_bounded_forgetting_has_the_gradient_of_its_formula() -> None:
    loss, sign = random_case(3)
    base = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(9)) * 8
    beta, lambda_ = 0.7, 0.25
    counts = TokenCounts.of(sign)
    found = forgetting_loss(npo_surrogate(loss, base, sign, beta), sign, counts, lambda_)
    (gradient,) = torch.autograd.grad(found, loss)
    negative = -lambda_ / counts.negative * 2 * torch.sigmoid(beta * (base - loss.detach()))
    expected = torch.where(sign > 0, 1 / counts.positive, torch.where(sign < 0, negative, 0.0))
    assert torch.allclose(gradient, expected, rtol=1e-12)


@pytest.mark.parametrize("base", [0.0, 1.0, 50.0])
def test_bounded_forgetting_tends_to_ascent_for_small_beta(base: float) -> None:
    """The gradient of −loss times 2σ(β·(base − loss)): ascent for 2σ(0) = 1, whatever the losses."""
    loss = torch.tensor(EXTREME, dtype=torch.float64, requires_grad=True)
    distance = []
    for beta in (1e-2, 1e-4, 1e-6, 1e-9):
        found = npo_surrogate(loss, torch.full_like(loss, base), NEGATIVE, beta)
        (gradient,) = torch.autograd.grad(found.sum(), loss)
        distance.append(float((gradient - 1).abs().max()))
    assert distance[-1] < 1e-6
    assert distance == sorted(distance, reverse=True)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-8), (torch.float32, 1e-5)])
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_npo_is_its_formula_for_extreme_losses(dtype: torch.dtype, tolerance: float, beta: float) -> None:
    loss = torch.tensor(EXTREME, dtype=dtype, requires_grad=True)
    base = torch.full_like(loss, 2.0)
    value = npo_surrogate(loss, base, NEGATIVE, beta)
    (gradient,) = torch.autograd.grad(value.sum(), loss)
    gaps = [2.0 - number for number in EXTREME]
    assert value.tolist() == pytest.approx(
        [-2 / beta * math.log1p(math.exp(beta * gap)) for gap in gaps], rel=tolerance
    )
    assert gradient.tolist() == pytest.approx([2 / (1 + math.exp(-beta * gap)) for gap in gaps], rel=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_unlikelihood_is_its_formula_for_extreme_losses(dtype: torch.dtype, tolerance: float) -> None:
    """−log(1 − p) with p = e^−loss, whose derivative is p/(1 − p); 1 − p is written so that float64 keeps it."""
    losses = [number for number in EXTREME if number]
    loss = torch.tensor(losses, dtype=dtype, requires_grad=True)
    value = -unlikelihood_surrogate(loss, torch.full_like(loss, -1))
    (gradient,) = torch.autograd.grad(value.sum(), loss)
    exact = [float(number) for number in loss.tolist()]  # as rounded to the dtype
    likelihood = [math.exp(-number) for number in exact]
    complement = [-math.expm1(-number) for number in exact]
    plain = [
        -math.log(rest) if rest < 0.5 else -math.log1p(-p) for p, rest in zip(likelihood, complement, strict=True)
    ]
    tiny = {"rel": tolerance, "abs": 1e-30}
    assert value.tolist() == pytest.approx(plain, **tiny)
    slopes = [-p / rest for p, rest in zip(likelihood, complement, strict=True)]
    assert gradient.tolist() == pytest.approx(slopes, **tiny)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_unlikelihood_goes_on_straight_where_the_formula_is_infinite(dtype: torch.dtype) -> None:
    below = torch.tensor([0.0, SMALLEST_LOSS / 2, SMALLEST_LOSS], dtype=dtype, requires_grad=True)
    value = unlikelihood_surrogate(below, torch.full_like(below, -1))
    (gradient,) = torch.autograd.grad(value.sum(), below)
    slope = 1 / math.expm1(SMALLEST_LOSS)
    assert gradient.tolist() == pytest.approx([slope] * 3, rel=1e-6)
    assert value.tolist() == pytest.approx([math.log(SMALLEST_LOSS) - gap for gap in (1.0, 0.5, 0.0)], rel=1e-6)


def test_a_token_that_the_model_is_sure_of_moves_its_logits_by_at_most_its_likelihood() -> None:
    """∂(−log(1 − p))/∂logit is p: bounded, though the derivative by the loss is not."""
    logits = torch.tensor([[30.0, 0.0], [16.0, 0.0], [5.0, 0.0], [-30.0, 0.0]], requires_grad=True)
    target = torch.zeros(4, dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    (-unlikelihood_surrogate(loss, torch.full((4,), -1))).sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert (logits.grad.abs() <= 1.01).all()
    assert logits.grad[2, 0] == pytest.approx(float(torch.softmax(logits[2].detach(), 0)[0]), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_unlikelihood_replaces_the_mean_of_the_negative_tokens_only(seed: int) -> None:
    loss, sign = random_case(seed)
    found = forgetting_loss(unlikelihood_surrogate(loss, sign), sign, TokenCounts.of(sign), 0.3)
    unlikelihood = -torch.log(1 - torch.exp(-loss[sign == -1]))
    plain = loss[sign == 1].mean() + 0.3 * unlikelihood.mean()
    assert torch.allclose(found, plain, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(found, loss)
    (expected,) = torch.autograd.grad(plain, loss)
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=0)


def test_lambda_over_training() -> None:
    def weights(schedule: str) -> list[float]:
        config = LambdaConfig(schedule=schedule, t_min=0.1, t_max=0.5)  # type: ignore[arg-type]
        return [forget_weight(config, step, total=8, per_epoch=4) for step in range(8)]

    assert weights("linear") == pytest.approx([0.1 + 0.4 * step / 8 for step in range(8)])
    assert weights("published") == pytest.approx([0.4 * (step % 4) / 8 for step in range(8)])
    assert weights("constant") == [0.5] * 8
    assert weights("cosine") == pytest.approx(
        [0.1 + 0.4 * (1 - math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    )
