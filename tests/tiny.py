"""Tiny models of several architectures and token rows, made in place: no download, no shared files."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from forgetting_core.tables import IGNORE_INDEX, TokenRows

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=5.0),
    "gemma3": Gemma3TextConfig(**SHAPE, head_dim=8),
    "gpt_neo": GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
    ),
}


def save_model(folder: Path, architecture: str = "llama", *, dtype: torch.dtype = torch.float32) -> Path:
    """A model with random weights, larger than usual so that the losses differ, and a byte tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.to(dtype).save_pretrained(folder)
    byte_level = Tokenizer(
        models.BPE(vocab={chr(33 + index): index for index in range(94)} | {"</s>": 94}, merges=[])
    )
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=byte_level, eos_token="</s>").save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte: any text is encoded."""
    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def token_rows(count: int, *, seed: int = 0, longest: int = 20) -> TokenRows:
    """Random rows: prompts, answers, one row without a response token and one of a single token."""
    generator = np.random.Generator(np.random.PCG64(seed))
    lengths = generator.integers(2, longest + 1, count)
    lengths[min(1, count - 1)] = 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    input_ids = generator.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    labels = np.where(generator.random(offsets[-1]) < 0.6, input_ids, IGNORE_INDEX).astype(np.int32)
    labels[offsets[0] : offsets[1]] = IGNORE_INDEX
    return TokenRows(input_ids, labels, offsets)


def write_rows(rows: TokenRows, folder: Path) -> Path:
    """The rows as a split artifact."""
    import pyarrow as pa

    from forgetting_core.tables import SPLIT_SCHEMA, list_array, write_parquet

    count = len(rows)
    columns = [
        pa.array(range(count), pa.int64()),
        list_array(rows.input_ids, rows.offsets, pa.int32()),
        list_array(rows.labels, rows.offsets, pa.int32()),
        pa.array(["rows.jsonl"] * count),
        pa.array(range(count), pa.int64()),
        pa.array([None] * count, pa.string()),
    ]
    write_parquet(folder / "part-00000.parquet", [pa.Table.from_arrays(columns, schema=SPLIT_SCHEMA)], SPLIT_SCHEMA)
    return folder
