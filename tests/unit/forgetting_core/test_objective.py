"""The objective against its plain formula in float64, and λ over training."""

import math

import pytest
import torch

from forgetting_core.config import LambdaConfig
from forgetting_core.objective import TokenCounts, forget_weight, forgetting_loss, npo_surrogate


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


def test_bounded_forgetting_tends_to_ascent_for_small_beta() -> None:
    loss, sign = random_case(4)
    found = npo_surrogate(loss, torch.zeros_like(loss), sign, 1e-6)
    (gradient,) = torch.autograd.grad(found.sum(), loss)
    assert torch.allclose(gradient, torch.ones_like(loss), atol=1e-5)


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
