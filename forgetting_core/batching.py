"""Which rows go together: the order of an epoch, optimizer steps, and forward passes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from forgetting_core.config import TrainingConfig
from forgetting_core.layout import Layout, fill_lines
from forgetting_core.models import position_limit
from forgetting_core.tables import TokenRows

LINE_TOKENS = 1024
"""Of a packed line: attention is computed over the whole line, so a longer one costs more than it saves."""
AUTO_TOKENS = 8192
"""Of one forward pass on a GPU when the micro-batch is `auto`, padding included."""
CPU_TOKENS = 1024
"""The same on a CPU, where more at once is not faster, only larger."""


class MicroBatch(NamedTuple):
    """What one forward pass sees."""

    number: int
    """Within the optimizer step, or what else was cut."""
    layout: Layout
    input_ids: torch.Tensor
    """int64 (B, T)"""
    sign: torch.Tensor
    """int8 (B, T), 0 for the tokens whose loss is not asked for"""

    @property
    def chosen(self) -> torch.Tensor:
        """bool (B, T): the tokens whose loss is asked for"""
        return self.sign != 0

    @property
    def chosen_tokens(self) -> np.ndarray:
        """int64 (N,): where they are in the flat arrays of the data, in the order in which a model gives losses."""
        return self.layout.tokens[self.chosen.flatten().numpy()[self.layout.places]]

    def inputs(self, device: torch.device | str) -> dict[str, torch.Tensor | None]:
        """What `TokenLossModel` takes."""
        positions = self.layout.position_ids
        return {
            "input_ids_BT": self.input_ids.to(device),
            "select_BT": self.chosen.to(device),
            "position_ids_BT": None if positions is None else positions.to(device),
        }

    def idle(self) -> "MicroBatch":
        """The same teaching nothing, for a rank that has to take part."""
        return self._replace(sign=torch.zeros_like(self.sign))


class Passes(NamedTuple):
    """How rows are cut into forward passes."""

    micro_batch: int | str
    """Rows of each, in the given order and padded to the longest; or `auto`: by length, as full as is fast."""
    line_tokens: int
    """With `auto`, rows share lines of at most this many tokens; 0 where each has a line of its own."""
    device: str

    @classmethod
    def of(
        cls, model: PreTrainedModel | PeftModel, micro_batch: int | str, device: str, *, packed: bool
    ) -> "Passes":
        """For `model`; `packed` where it keeps rows apart that share a line (see `packing`)."""
        line = min(LINE_TOKENS, position_limit(model) or LINE_TOKENS)
        return cls(micro_batch, line if packed else 0, device)

    def micro_batches(self, data: TokenRows, sign: np.ndarray, rows: np.ndarray) -> list[MicroBatch]:
        """Each pass over `rows`; `sign` int8 (T,) is aligned with `data.input_ids`."""
        return [
            MicroBatch(number, layout, layout.spread(data.input_ids, torch.long), layout.spread(sign, torch.int8))
            for number, layout in enumerate(self._layouts(data, rows))
        ]

    def _layouts(self, data: TokenRows, rows: np.ndarray) -> list[Layout]:
        if not isinstance(self.micro_batch, str):
            cuts = range(0, len(rows), self.micro_batch)
            return [Layout.of(data, list(rows[first : first + self.micro_batch, None])) for first in cuts]
        tokens = AUTO_TOKENS if self.device.startswith("cuda") else CPU_TOKENS
        lines = fill_lines(rows, data.lengths, self.line_tokens) if self.line_tokens else list(rows[:, None])
        return [Layout.of(data, some) for some in _share(lines, data.lengths, tokens)]


def _share(lines: list[np.ndarray], lengths: np.ndarray, tokens: int) -> Iterator[list[np.ndarray]]:
    """Lines of about the same width together, at most `tokens` padded tokens, one line at least."""
    widths = np.array([int(lengths[line].sum()) for line in lines])
    pending: list[np.ndarray] = []
    for index in np.argsort(widths, kind="stable"):
        if pending and widths[index] * (len(pending) + 1) > tokens:
            yield pending
            pending = []
        pending.append(lines[index])
    if pending:
        yield pending


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
