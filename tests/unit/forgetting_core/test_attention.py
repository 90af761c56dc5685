"""Attention row by row: transformers' own results, where the mask keeps rows apart and does nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from forgetting_core.attention import ROW_BY_ROW, attend_row_by_row
from tests.unit.forgetting_core.test_packing import model_of

LENGTHS = (40, 1, 3, 90)


class AttentionLengths(TorchDispatchMode):
    """Notes how many tokens each call of the attention kernels is about."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "scaled_dot_product" in str(function) and "backward" not in str(function):
            self.found.append(args[0].shape[2])
        return function(*args, **(kwargs or {}))


def packed_pass(model: PreTrainedModel) -> tuple[torch.Tensor, list[torch.Tensor], list[int]]:
    """Hidden states (T, D), the gradients of all weights, and the tokens of each attention."""
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    input_ids = torch.arange(len(positions)) * 5 % 97
    with AttentionLengths() as lengths:
        found = model.base_model(
            input_ids=input_ids[None], position_ids=positions[None], use_cache=False
        ).last_hidden_state[0]
    weight = torch.linspace(-1, 1, found.numel(), dtype=found.dtype).view_as(found)
    gradients = torch.autograd.grad((found * weight).sum(), list(model.base_model.parameters()))
    return found, list(gradients), lengths.found


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi", "gemma3_text", "mistral, narrow window"])
def test_hidden_states_and_gradients_are_those_under_the_mask(architecture: str) -> None:
    model = model_of(architecture)
    expected, expected_gradients, whole = packed_pass(model)
    assert set(whole) == {sum(LENGTHS)}
    attend_row_by_row(model, "cpu")
    assert model.config._attn_implementation == ROW_BY_ROW
    found, gradients, _ = packed_pass(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for gradient, of_mask in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, of_mask, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi", "gemma3_text"])
def test_each_row_is_computed_by_itself(architecture: str) -> None:
    model = model_of(architecture)
    attend_row_by_row(model, "cpu")
    assert packed_pass(model)[2] == [*LENGTHS] * 2


def test_rows_wider_than_a_layers_window_stay_under_its_mask() -> None:
    model = model_of("mistral, narrow window")
    attend_row_by_row(model, "cpu")
    assert packed_pass(model)[2] == [sum(LENGTHS)] * 2


def test_a_model_that_computes_attention_otherwise_is_left_alone() -> None:
    model = model_of("llama")
    model.set_attn_implementation("eager")
    attend_row_by_row(model, "cpu")
    assert model.config._attn_implementation == "eager"


def test_a_saved_model_does_not_name_it(tmp_path: Path) -> None:
    model = model_of("llama")
    attend_row_by_row(model, "cpu")
    model.save_pretrained(tmp_path)
    assert ROW_BY_ROW not in (tmp_path / "config.json").read_text(encoding="utf-8")
