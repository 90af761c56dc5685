"""Rows in one line without padding: the losses that each has alone, on every architecture."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from forgetting_core.packing import PACK_TOKENS, keeps_rows_apart, packs
from forgetting_core.progress import Progress
from forgetting_core.scoring import token_losses
from forgetting_core.tables import IGNORE_INDEX, TokenRows
from forgetting_core.token_loss import TokenLossModel

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
ARCHITECTURES = {
    "llama": SMALL,
    "qwen2": SMALL,
    "phi": SMALL,
    "gemma3_text": {**SMALL, "head_dim": 8},
    "gpt_neo": {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 2048,
    },
    "opt": {
        "vocab_size": 97,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "word_embed_proj_dim": 32,
    },
}


def model_of(architecture: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    torch.manual_seed(1)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def rows_of(lengths: list[int]) -> TokenRows:
    random = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = random.integers(0, 97, offsets[-1]).astype(np.int32)
    labels = np.where(random.random(offsets[-1]) < 0.6, input_ids, IGNORE_INDEX).astype(np.int32)
    return TokenRows(input_ids, labels, offsets)


def losses(model: PreTrainedModel, rows: TokenRows, micro_batch: int | str) -> np.ndarray:
    return token_losses(TokenLossModel(model), rows, block_rows=16, micro_batch=micro_batch, progress=Progress())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_in_a_packed_line_are_those_of_each_row_alone(architecture: str) -> None:
    rows = rows_of([1, 2, 40, 0, 700, 700, 17, 3, 1300, 90, 5])
    model = model_of(architecture)
    packed, alone = losses(model, rows, "auto"), losses(model, rows, 1)
    assert np.array_equal(np.isnan(packed), np.isnan(alone))
    assert np.nanmax(np.abs(packed - alone)) < 1e-6


def test_a_model_that_counts_positions_by_itself_is_not_packed() -> None:
    assert not keeps_rows_apart(model_of("opt"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "opt"])
def test_a_model_that_heeds_position_ids_is_packed(architecture: str, dtype: torch.dtype) -> None:
    assert keeps_rows_apart(model_of(architecture, dtype))


def test_lines_are_full_and_every_row_is_in_one() -> None:
    lengths = np.random.default_rng(3).integers(1, 1500, 300)
    chosen = np.arange(0, 300, 2)
    lines = packs(chosen, lengths)
    assert sorted(np.concatenate(lines)) == chosen.tolist()
    assert all(lengths[line].sum() <= PACK_TOKENS for line in lines if len(line) > 1)
    assert packs(chosen[:0], lengths) == []
