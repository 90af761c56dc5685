"""The k highest of more numbers than fit into memory, exactly, ties included.

A radix selection over the bit patterns of float32: two readings of the numbers count how often each upper and then,
within one of them, each lower half of a pattern occurs. That finds the lowest number chosen, and how many of those
equal to it are. Nothing is sorted, and memory does not grow with the numbers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

HALF = 16
"""Bits counted in one reading."""
COUNTERS = 1 << HALF

Readings = Callable[[], Iterable[np.ndarray]]
"""Consecutive float32 arrays, NaN where there is no candidate; every call reads them from the start."""


@dataclass(frozen=True)
class Cut:
    """Where the highest end: all above `value` are chosen, and of those equal to it the first `ties`."""

    value: np.float32
    ties: int


class Chooser:
    """Says which numbers a cut chooses, of arrays read once more in the same order."""

    def __init__(self, cut: Cut) -> None:
        self._value = cut.value
        self._ties = cut.ties

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """bool, as long as `values`."""
        chosen = values > self._value
        if self._ties:
            equal = np.flatnonzero(values == self._value)[: self._ties]
            chosen[equal] = True
            self._ties -= len(equal)
        return chosen


def find_cut(readings: Readings, count_of: Callable[[int], int]) -> Cut:
    """The cut that chooses the `count_of(N)` highest of N candidates; ties go to the earlier ones."""
    upper = np.zeros(COUNTERS, dtype=np.int64)
    for values in readings():
        upper += np.bincount((_keys(values) >> HALF) + COUNTERS // 2, minlength=COUNTERS)
    count = count_of(int(upper.sum()))
    if count == 0:
        return Cut(np.float32(np.inf), 0)
    place, rest = _counter_of(upper, count)
    half = place - COUNTERS // 2
    lower = np.zeros(COUNTERS, dtype=np.int64)
    for values in readings():
        keys = _keys(values)
        lower += np.bincount(keys[keys >> HALF == half] & (COUNTERS - 1), minlength=COUNTERS)
    place, ties = _counter_of(lower, rest)
    return Cut(_value(half << HALF | place), ties)


def highest(values: np.ndarray, count: int) -> np.ndarray:
    """bool (N,): the `count` highest of `values` (N,), float32 without NaN; ties go to the earlier ones."""
    if count == 0:
        return np.zeros(len(values), dtype=bool)
    value = np.partition(values, len(values) - count)[len(values) - count]
    return Chooser(Cut(value, count - int((values > value).sum())))(values)


def _keys(values: np.ndarray) -> np.ndarray:
    """int32 in the order of the candidates: the bits below the sign of a negative number count downwards."""
    bits = (values[values == values] + np.float32(0)).view(np.int32)  # −0 + 0 is +0
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def _value(key: int) -> np.float32:
    """The number with this key."""
    return np.int32(key ^ (key >> 31 & 0x7FFFFFFF)).view(np.float32)


def _counter_of(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The counter with the `rank`th highest number (from 1), and the rank of that number among its own."""
    at_least = np.cumsum(counts[::-1])
    place = int(np.searchsorted(at_least, rank))
    found = len(counts) - 1 - place
    return found, rank - int(at_least[place] - counts[found])
