"""What scoring and training are timed on: models of published shapes with random weights, rows of mixed lengths.

How long a model computes does not depend on its weights, so nothing has to be fetched.
"""

from collections.abc import Mapping

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.losses import LONGEST, SHORTEST
from forgetting_core.tables import IGNORE_INDEX, TokenRows

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LLAMA_3_2_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
WIDE_VOCABULARY = {**SMOLLM2_135M, "vocab_size": 128_000, "num_hidden_layers": 2}
"""Few layers under a large head: what memory goes into is the logits."""


def random_model(shape: Mapping[str, object], dtype: torch.dtype, device: str = "cpu") -> LlamaForCausalLM:
    """Weights drawn with a fixed seed."""
    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(**shape)).to(dtype).eval()


def mixed_rows(count: int, vocabulary: int, *, seed: int = 0) -> TokenRows:
    """Rows of 20 to 600 tokens, in random order; the second half of each is its response.

    Lengths are spread evenly: how much padding rows need in batches shall not hang on which few are drawn.
    """
    lengths = np.random.default_rng(seed).permutation(np.linspace(SHORTEST, LONGEST, count, dtype=int))
    return rows_of_lengths(lengths.tolist(), vocabulary, seed)


def rows_of_lengths(lengths: list[int], vocabulary: int, seed: int = 0) -> TokenRows:
    """Rows of random tokens; the second half of each is its response."""
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = random.integers(0, vocabulary, offsets[-1]).astype(np.int32)
    labels = input_ids.copy()
    for start, length in zip(offsets[:-1], lengths, strict=True):
        labels[start : start + length // 2] = IGNORE_INDEX
    return TokenRows(input_ids, labels, offsets)


def padded(rows: TokenRows, some: range, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The rows as a library's collator gives them: `input_ids`, `attention_mask` and `labels`, int64 (B, T)."""
    width = int(rows.lengths[some.start : some.stop].max())
    batch = {
        "input_ids": torch.zeros(len(some), width, dtype=torch.long),
        "attention_mask": torch.zeros(len(some), width, dtype=torch.long),
        "labels": torch.full((len(some), width), IGNORE_INDEX),
    }
    for line, row in enumerate(some):
        span = slice(rows.offsets[row], rows.offsets[row + 1])
        length = span.stop - span.start
        batch["input_ids"][line, :length] = torch.from_numpy(rows.input_ids[span])
        batch["labels"][line, :length] = torch.from_numpy(rows.labels[span])
        batch["attention_mask"][line, :length] = 1
    return {name: values.to(device) for name, values in batch.items()}
