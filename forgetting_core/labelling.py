"""Which response tokens are positive: the top ρ by influence, exactly (design §6), or a control's choice.

The controls tell the labels' share of the gain from the loss's: as many tokens at random, as many without the
reference model, or the very noise where it was planted. Tokens come in groups of rows that are read as often as a
labelling needs them, so memory does not grow with the corpus.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from itertools import zip_longest
from pathlib import Path

import numpy as np

from forgetting_core.config import PartitionConfig
from forgetting_core.errors import InputError
from forgetting_core.ranking import Chooser, find_cut, highest
from forgetting_core.tables import NOISE_FIELD, column_names, read_groups


@dataclass(frozen=True)
class ScoredRows:
    """Consecutive rows of a split, T tokens in all."""

    loss_base: np.ndarray
    """float32 (T,) in nats, NaN where not a response token"""
    influence: np.ndarray
    """likewise"""
    offsets: np.ndarray
    """int64 (R+1,): row i is `[offsets[i]:offsets[i+1]]`"""

    @property
    def response(self) -> np.ndarray:
        """bool (T,): the response tokens."""
        return ~np.isnan(self.influence)


Groups = Callable[[], Iterator[ScoredRows]]
"""All rows of a split in order; every call reads them from the start."""
Labelled = Iterator[tuple[ScoredRows, np.ndarray]]
"""Rows with the labels of their tokens: int8 (T,), +1 positive, −1 negative, 0 not a response token."""


def label_by_rank(read: Groups, config: PartitionConfig) -> Labelled:
    """Labels by the labellings that rank tokens: the influence decides how many are positive, `_ranked` which."""
    if config.scope == "row":
        yield from _label_each_row(read, config)
        return
    cut = find_cut(
        lambda: (values for _, values in _ranked(read, config)),
        lambda tokens: _count(config, tokens, (rows.influence for rows in read())),
    )
    choose = Chooser(cut)
    for rows, values in _ranked(read, config):
        yield rows, _labels(choose(values), rows.response)


def label_planted_noise(read: Groups, data: Path) -> Labelled:
    """Labels −1 for the response tokens that the split `data` calls noise, +1 for the others.

    Raises `InputError` when the split calls nothing noise or clean, or is another one.
    """
    if NOISE_FIELD.name not in column_names(data):
        raise InputError(
            f"partition.labelling: oracle_noise needs data that say what is noise, and no row of {data} does (by a "
            "field `noise` of the raw rows, as `synthetic` has it); choose influence, random or loss_only"
        )
    for rows, planted in zip_longest(read(), read_groups(data, NOISE_FIELD.name)):
        if rows is None or planted is None or not np.array_equal(planted[1], rows.offsets):
            raise InputError(f"partition: {data} has other tokens than the losses; score this split again")
        yield rows, _labels(planted[0] != 1, rows.response)


def positive_count(rho: str, tokens: int) -> int:
    """k = ⌊ρ·N⌋ with ρ an exact decimal."""
    return int((Decimal(rho) * tokens).to_integral_value(ROUND_FLOOR))


def _count(config: PartitionConfig, tokens: int, influence: Iterator[np.ndarray]) -> int:
    """k: the share ρ of so many tokens, or how many of them reach the threshold by their `influence`."""
    if config.rho is not None:
        return positive_count(config.rho, tokens)
    threshold = np.float64(config.threshold)  # not rounded: the comparison is in float64
    return sum(int((values >= threshold).sum()) for values in influence)


def _ranked(read: Groups, config: PartitionConfig) -> Iterator[tuple[ScoredRows, np.ndarray]]:
    """Rows, and what their tokens are ranked by: float32 (T,), NaN where not a response token.

    `loss_only` leaves the reference out of the influence: a high base loss is positive, the selection of hard
    examples that reducible loss is compared with (arXiv 2206.07137). It prefers noise, which is hard, too.
    """
    draws = np.random.Generator(np.random.PCG64(config.seed))
    for rows in read():
        if config.labelling == "random":
            drawn = draws.random(len(rows.influence), dtype=np.float32)
            yield rows, np.where(rows.response, drawn, np.float32(np.nan))
        else:
            yield rows, rows.loss_base if config.labelling == "loss_only" else rows.influence


def _label_each_row(read: Groups, config: PartitionConfig) -> Labelled:
    for rows, values in _ranked(read, config):
        chosen, response = np.zeros(len(values), dtype=bool), rows.response
        for row in map(slice, rows.offsets[:-1], rows.offsets[1:]):
            candidates = np.flatnonzero(response[row])
            count = _count(config, len(candidates), iter([rows.influence[row]]))
            chosen[row][candidates] = highest(values[row][candidates], count)
        yield rows, _labels(chosen, response)


def _labels(positive: np.ndarray, response: np.ndarray) -> np.ndarray:
    return 2 * (positive & response).view(np.int8) - response.view(np.int8)
