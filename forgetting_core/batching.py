"""Which rows go together: the order of an epoch, optimizer steps, micro-batches, padded tensors."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from forgetting_core.config import TrainingConfig
from forgetting_core.tables import TokenRows

AUTO_TOKENS = 8192
"""Padded tokens of one micro-batch when it is `auto`."""


class MicroBatch(NamedTuple):
    """What one forward and backward pass sees."""

    number: int
    """Within the optimizer step."""
    rows: np.ndarray
    input_ids: torch.Tensor
    """int64 (B, T)"""
    sign: torch.Tensor
    """int8 (B, T)"""

    def idle(self) -> "MicroBatch":
        """A row of it that teaches nothing, for a rank that has to take part."""
        return self._replace(rows=self.rows[:1], input_ids=self.input_ids[:1], sign=torch.zeros_like(self.sign[:1]))


def epoch_order(config: TrainingConfig, rows: int, epoch: int) -> np.ndarray:
    """int64 (rows,): the rows in the order of `epoch`, a function of the seed and the epoch alone."""
    if config.order == "file":
        return np.arange(rows)
    return np.random.Generator(np.random.PCG64([config.seed, epoch])).permutation(rows)


def optimizer_steps(config: TrainingConfig, rows: int) -> Iterator[np.ndarray]:
    """The rows of each optimizer step, over all epochs; the last step of an epoch may be short."""
    per_epoch = steps_per_epoch(config, rows)
    for epoch in range(config.epochs):
        order = epoch_order(config, rows, epoch)
        for index in range(per_epoch):
            first = index * config.rows_per_step
            yield order[first : first + config.rows_per_step]


def steps_per_epoch(config: TrainingConfig, rows: int) -> int:
    """Optimizer steps of one epoch, a short last one counted."""
    return -(-rows // config.rows_per_step)


def micro_batches(rows: np.ndarray, lengths: np.ndarray, micro_batch: int | str) -> list[np.ndarray]:
    """Cut `rows` (their `lengths` in tokens, indexed by row) for one forward pass each.

    A number cuts in the given order; `auto` sorts by length and fills a budget of padded tokens.
    """
    if not isinstance(micro_batch, str):
        return [rows[first : first + micro_batch] for first in range(0, len(rows), micro_batch)]
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    batches: list[np.ndarray] = []
    first = 0
    for index in range(1, len(ordered) + 1):
        if index == len(ordered) or lengths[ordered[index]] * (index + 1 - first) > AUTO_TOKENS:
            batches.append(ordered[first:index])
            first = index
    return batches


def padded_batches(data: TokenRows, sign: np.ndarray, rows: np.ndarray, micro_batch: int | str) -> list[MicroBatch]:
    """The micro-batches of one optimizer step over `rows`; `sign` int8 (T,) is aligned with `data.input_ids`."""
    return [
        MicroBatch(
            number,
            batch,
            pad_right(data, data.input_ids, batch, torch.long),
            pad_right(data, sign, batch, torch.int8),
        )
        for number, batch in enumerate(micro_batches(rows, data.lengths, micro_batch))
    ]


def pad_right(data: TokenRows, values: np.ndarray, rows: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """(B, T) tensor of `values` (aligned with `data.input_ids`) for `rows`, 0 beyond a row's end."""
    width = max(1, int(data.lengths[rows].max(initial=0)))
    padded = np.zeros((len(rows), width), dtype=values.dtype)
    for index, row in enumerate(rows):
        start, end = data.offsets[row], data.offsets[row + 1]
        padded[index, : end - start] = values[start:end]
    return torch.from_numpy(padded).to(dtype)
