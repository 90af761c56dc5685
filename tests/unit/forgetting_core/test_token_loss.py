"""The loss primitive against the plain formula: values and gradients, in chunks, on every architecture."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from forgetting_core import token_loss
from forgetting_core.batching import Passes
from forgetting_core.config import ForgetConfig
from forgetting_core.errors import InputError
from forgetting_core.objective import TokenCounts, TokenObjective, forgetting_loss, npo_surrogate
from forgetting_core.objective import unlikelihood_surrogate as unlikelihood
from forgetting_core.tables import IGNORE_INDEX, TokenRows
from forgetting_core.token_loss import TokenLossModel
from tests.tiny import CONFIGS, VOCABULARY

LENGTHS = [9, 1, 64, 30, 2, 17]
LAMBDA = 0.3


def model_of(architecture: str, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(2)
    return AutoModelForCausalLM.from_config(CONFIGS[architecture]).to(dtype).eval()


def rows_of(lengths: list[int]) -> tuple[TokenRows, np.ndarray, np.ndarray]:
    """(rows, sign int8 (T,), base losses float64 (T,))."""
    random = np.random.default_rng(5)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = random.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    labels = np.where(random.random(offsets[-1]) < 0.7, input_ids, IGNORE_INDEX).astype(np.int32)
    rows = TokenRows(input_ids, labels, offsets)
    sign = np.where(random.random(offsets[-1]) < 0.4, -1, 1) * rows.response_mask()
    return rows, sign.astype(np.int8), random.random(offsets[-1]) * 6


def plain_value(model: PreTrainedModel, rows: TokenRows, sign: np.ndarray, base: np.ndarray, negative: str) -> Any:
    """The objective from all logits of each row alone."""
    losses = []
    for span in rows.rows():
        ids = torch.from_numpy(rows.input_ids[span]).long()
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        of_row = F.cross_entropy(logits[:-1].double(), ids[1:], reduction="none")
        losses.append(F.pad(of_row, (1, 0)))
    loss, signs, bases = torch.cat(losses), torch.from_numpy(sign), torch.from_numpy(base)
    if negative == "npo":
        loss = npo_surrogate(loss, bases, signs, ForgetConfig().beta)
    elif negative == "unlikelihood":
        loss = unlikelihood(loss, signs)
    return forgetting_loss(loss, signs, TokenCounts.of(signs), LAMBDA)


def our_value(model: PreTrainedModel, rows: TokenRows, sign: np.ndarray, base: np.ndarray, negative: str) -> Any:
    """The objective from all rows in one pass, of packed lines."""
    (batch,) = Passes("auto", 64, "cuda").micro_batches(rows, sign, np.arange(len(rows)))
    objective = TokenObjective(
        ForgetConfig(negative=negative),
        batch.sign[batch.chosen],
        TokenCounts.of(batch.sign),
        LAMBDA,
        torch.from_numpy(base[batch.chosen_tokens]),
    )
    value, _ = TokenLossModel(model)(**batch.inputs("cpu"), objective=objective)
    return value


def gradients(model: PreTrainedModel, value: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    value.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("negative", ["ascent", "npo", "unlikelihood"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_value_and_gradients_are_those_of_the_plain_formula(
    architecture: str, negative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_loss, "CHUNK_LOGITS", 7 * VOCABULARY)
    monkeypatch.setattr(token_loss, "CPU_LOGITS", 3 * VOCABULARY)
    model = model_of(architecture, torch.float64)
    arguments = (*rows_of(LENGTHS), negative)
    plain = plain_value(model, *arguments)
    expected = gradients(model, plain)
    found_value = our_value(model, *arguments)
    found = gradients(model, found_value)
    assert float(found_value.detach()) == pytest.approx(float(plain.detach()), rel=1e-7)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():  # attention in transformers' Gemma and GPT-Neo is float32 inside
        largest = float(gradient.abs().max())
        assert float((found[name] - gradient).abs().max()) < 1e-6 * largest, name


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_gradients_in_bfloat16_point_where_those_of_float64_do(architecture: str) -> None:
    """As of the plain way in bfloat16, whose gradients have errors of the same size."""
    arguments = (*rows_of(LENGTHS), "ascent")
    model = model_of(architecture, torch.float32)
    expected = gradients(model, plain_value(model.double(), *arguments))
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, plain = our_value(model, *arguments), plain_value(model, *arguments)
    ours, theirs = gradients(model, value), gradients(model, plain)

    def error(found: dict[str, torch.Tensor]) -> float:
        square = sum(float((found[name] - gradient).square().sum()) for name, gradient in expected.items())
        return (square / sum(float(gradient.square().sum()) for gradient in expected.values())) ** 0.5

    assert error(ours) < max(0.02, 1.5 * error(theirs))


def test_a_pass_without_a_chosen_token_reaches_every_parameter_with_zeros() -> None:
    """Or the other ranks would wait for this one's gradients."""
    model = model_of("llama", torch.float32)
    rows, sign, base = rows_of([5, 3])
    value = our_value(model, rows, np.zeros_like(sign), base, "npo")
    found = gradients(model, value)
    assert float(value.detach()) == 0
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(not gradient.any() for gradient in found.values())


def test_a_frozen_head_gets_no_gradient() -> None:
    model = model_of("llama", torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    found = gradients(model, our_value(model, *rows_of(LENGTHS), "ascent"))
    assert "lm_head.weight" not in found
    assert found["model.embed_tokens.weight"].any()


def test_a_model_whose_logits_are_more_than_its_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that scales them outside."""
    model = model_of("gemma2", torch.float32)
    monkeypatch.setattr(token_loss, "head_logits", lambda model, hidden: model.get_output_embeddings()(hidden))
    with pytest.raises(InputError, match="Gemma2ForCausalLM computes its logits otherwise than head"):
        TokenLossModel(model)


@pytest.mark.parametrize("missing", ["base_model_prefix", "get_output_embeddings"])
def test_a_model_without_a_body_or_a_head_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama", torch.float32)
    monkeypatch.setattr(type(model), missing, "" if missing == "base_model_prefix" else lambda self: None)
    with pytest.raises(InputError, match="LlamaForCausalLM has no body that gives hidden states to a head"):
        TokenLossModel(model)
