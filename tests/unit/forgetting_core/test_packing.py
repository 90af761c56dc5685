"""Rows in one line without padding: the losses that each has alone, on every architecture."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from forgetting_core import batching
from forgetting_core.batching import AUTO_TOKENS, LINE_TOKENS, Passes
from forgetting_core.packing import keeps_rows_apart
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
    "gemma3_text, narrow window": {**SMALL, "head_dim": 8, "sliding_window": 32},
    "mistral, narrow window": {**SMALL, "sliding_window": 32},
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


def model_of(architecture: str, dtype: torch.dtype = torch.float64, **settings: int) -> PreTrainedModel:
    torch.manual_seed(1)
    name, _, _ = architecture.partition(",")
    config = AutoConfig.for_model(name, **{**ARCHITECTURES[architecture], **settings})
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def rows_of(lengths: list[int]) -> TokenRows:
    random = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = random.integers(0, 97, offsets[-1]).astype(np.int32)
    labels = np.where(random.random(offsets[-1]) < 0.6, input_ids, IGNORE_INDEX).astype(np.int32)
    return TokenRows(input_ids, labels, offsets)


def losses(model: PreTrainedModel, rows: TokenRows, micro_batch: int | str) -> np.ndarray:
    return token_losses(TokenLossModel(model), rows, block_rows=16, micro_batch=micro_batch, progress=Progress())


@pytest.mark.parametrize("lines", ["one line at a time", "several lines"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_losses_in_a_packed_line_are_those_of_each_row_alone(
    architecture: str, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lines == "several lines":  # as on a GPU
        monkeypatch.setattr(batching, "CPU_TOKENS", batching.AUTO_TOKENS)
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


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("line_tokens", [0, LINE_TOKENS])
def test_every_token_is_in_one_pass_of_bounded_size(line_tokens: int, device: str) -> None:
    rows = rows_of(np.random.default_rng(3).integers(1, 1500, 300).tolist())
    chosen = np.arange(0, 300, 2)
    batches = Passes("auto", line_tokens, device).micro_batches(rows, rows.response_mask(), chosen)
    tokens = np.concatenate([batch.layout.tokens for batch in batches])
    spans = list(rows.rows())
    assert (
        sorted(tokens) == np.concatenate([np.arange(spans[row].start, spans[row].stop) for row in chosen]).tolist()
    )
    for batch in batches:
        lines, width = batch.layout.shape
        assert lines == 1 or lines * width <= AUTO_TOKENS
        assert width <= max(line_tokens, rows.lengths[batch.layout.rows].max())
        assert (batch.input_ids.flatten()[batch.layout.places].numpy() == rows.input_ids[batch.layout.tokens]).all()


def test_packed_lines_hold_little_padding() -> None:
    rows = rows_of(np.random.default_rng(3).integers(20, 600, 512).tolist())
    for device, share in (("cpu", 0.0), ("cuda", 0.05)):
        batches = Passes("auto", LINE_TOKENS, device).micro_batches(rows, rows.response_mask(), np.arange(512))
        places = sum(batch.input_ids.numel() for batch in batches)
        assert 1 - rows.offsets[-1] / places <= share


def test_lines_are_no_longer_than_the_positions_of_a_model_that_has_a_table_of_them() -> None:
    model = model_of("gpt_neo", max_position_embeddings=64)
    rows = rows_of([40, 30, 20, 64, 10])
    packed, alone = losses(model, rows, "auto"), losses(model, rows, 1)
    assert np.nanmax(np.abs(packed - alone)) < 1e-6
