"""Made-up token losses of any size: what partitioning is measured on."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from forgetting_core.labelling import ScoredRows
from forgetting_core.partition import influence
from forgetting_core.tables import LOSS_SCHEMA, ROWS_PER_GROUP, list_array, write_parquet

SHORTEST, LONGEST = 20, 600
PROMPT = 0.3
TOKENS_PER_PART = 12_500_000
TIE = 64
"""Losses are multiples of 1/64 nat where ties are wanted."""


def make_losses(tokens: int, seed: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(base, reference: float32 (tokens,) nats, NaN in prompts; offsets int64 (R+1,)) of rows of mixed lengths."""
    generator = np.random.Generator(np.random.PCG64(seed))
    ends = np.cumsum(generator.integers(SHORTEST, LONGEST + 1, tokens // SHORTEST + 1))
    offsets = np.concatenate([[0], ends[ends < tokens], [tokens]]).astype(np.int64)
    base = generator.exponential(2, tokens).astype(np.float32)
    reference = base * generator.normal(0.8, 0.3, tokens).astype(np.float32)
    if ties:
        base, reference = (np.round(loss * TIE) / np.float32(TIE) for loss in (base, reference))
    lengths = np.diff(offsets)
    place = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    prompt = place < np.repeat(np.ceil(PROMPT * lengths).astype(np.int64), lengths)
    base[prompt] = reference[prompt] = np.nan
    return base, reference, offsets


def grouped(base: np.ndarray, reference: np.ndarray, offsets: np.ndarray) -> list[ScoredRows]:
    """The losses as the step reads them from files."""
    groups = []
    for first in range(0, len(offsets) - 1, ROWS_PER_GROUP):
        edges = offsets[first : first + ROWS_PER_GROUP + 1]
        of_group = slice(edges[0], edges[-1])
        score = influence(base[of_group], reference[of_group])
        groups.append(ScoredRows(base[of_group], score, edges - edges[0]))
    return groups


def write_losses(folder: Path, tokens: int) -> list[int]:
    """Write `folder/base` and `folder/reference`, a file for every `TOKENS_PER_PART`; the tokens of each."""
    parts = []
    for seed in range(-(-tokens // TOKENS_PER_PART)):
        parts.append(min(TOKENS_PER_PART, tokens - seed * TOKENS_PER_PART))
        *losses, offsets = make_losses(parts[-1], seed)
        rows = pa.array(np.arange(len(offsets) - 1))
        for model, loss in zip(("base", "reference"), losses, strict=True):
            table = pa.Table.from_arrays([rows, list_array(loss, offsets, pa.float32())], schema=LOSS_SCHEMA)
            write_parquet(folder / model / f"part-{seed:05d}.parquet", [table], LOSS_SCHEMA)
    return parts
