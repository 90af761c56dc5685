"""Where the tokens of some rows stand in the (B, T) tensors of one forward pass.

A line (a row of the tensors) holds one row of the data, or several one after the other; what is left of it at the
end is padding. With causal attention no token sees the padding behind it, so no attention mask is needed; rows that
share a line are told apart by position ids, which begin again at 0 with each.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forgetting_core.tables import TokenRows


@dataclass(frozen=True)
class Layout:
    """The places of n tokens, row after row as they are read."""

    rows: np.ndarray
    """int64: the rows, in reading order"""
    tokens: np.ndarray
    """int64 (n,): where each token is in the flat arrays of the data"""
    places: np.ndarray
    """int64 (n,): where it goes in a flattened (B, T) tensor"""
    shape: tuple[int, int]
    position_ids: torch.Tensor | None
    """int64 (B, T); None where each line holds one row, for which positions are counted anyway"""

    @classmethod
    def of(cls, data: TokenRows, lines: Sequence[np.ndarray]) -> "Layout":
        """`lines` are the rows of each line."""
        rows = np.concatenate(lines)
        lengths = data.lengths[rows]
        line = np.repeat(np.arange(len(lines)), [len(some) for some in lines])
        ends = np.cumsum(lengths)
        filled = np.bincount(line, weights=lengths, minlength=len(lines)).astype(np.int64)
        width = max(1, int(filled.max(initial=0)))
        in_row = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        before_line = np.concatenate([[0], np.cumsum(filled)[:-1]])[line]
        starts = line * width + ends - lengths - before_line
        places = in_row + np.repeat(starts, lengths)
        positions = None
        if len(rows) > len(lines):
            positions = np.zeros((len(lines), width), np.int64)
            positions.reshape(-1)[places] = in_row
        return cls(
            rows=rows,
            tokens=in_row + np.repeat(data.offsets[rows], lengths),
            places=places,
            shape=(len(lines), width),
            position_ids=None if positions is None else torch.from_numpy(positions),
        )

    def spread(self, values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """(B, T) tensor of `values` (aligned with the data's flat arrays), 0 in the padding."""
        spread = np.zeros(self.shape, values.dtype)
        spread.reshape(-1)[self.places] = values[self.tokens]
        return torch.from_numpy(spread).to(dtype)


def fill_lines(rows: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Put `rows` (their `lengths`, indexed by row) into few lines of at most `tokens` tokens.

    Best fit, the longest row first (D. S. Johnson, Near-optimal bin packing algorithms, 1973). A longer row is a
    line of its own.
    """
    lines: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, line), ascending
    for row in rows[np.argsort(-lengths[rows], kind="stable")]:
        length = int(lengths[row])
        place = bisect_left(room, (length, 0))
        if place == len(room):
            left, line = tokens, len(lines)
            lines.append([])
        else:
            left, line = room.pop(place)
        lines[line].append(int(row))
        insort(room, (left - length, line))
    return [np.array(line) for line in lines]
