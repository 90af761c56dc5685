"""How much better one model is than another on the same items, and how sure that is over items and training seeds.

Both were asked the same questions and trained with the same seeds, so differences are taken item by item: what
makes a question hard cancels out.

The intervals are Student's t, in closed form. A bootstrap over two to five seeds, the few that anyone trains, is
far too narrow: it knows their spread no better than they do, but takes it for certain.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Values = Mapping[int, np.ndarray]
"""{training seed: a number per item}"""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, with the interval of `CONFIDENCE`; None where there is but one draw in all."""

    mean: float
    low: float | None
    high: float | None
    stderr: float | None
    per_seed: dict[int, float]
    sign: int
    """1 or -1 where the interval leaves out 0, else 0."""


def paired_difference(
    ours: Values, theirs: Values, *, weights: Values | None = None, same_items: bool = False
) -> Difference:
    """The mean over seeds of the weighted mean over items of `ours - theirs`.

    Values are float (items,) for each seed, in the same order of items on both sides; an item that is NaN on either
    side is left out. `weights` likewise, 1 when left out. With a single seed the interval is over items only. Where
    each seed was asked items of its own, the differences of the seeds are independent draws, which have the noise
    of their items in them. With `same_items` seeds and items are crossed, and both vary: see `crossed`.

    Raises `ValueError` when the two sides differ in seeds or in the number of items, or have no item in common.
    """
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(
            f"cannot pair seeds {sorted(ours)} with {sorted(theirs)}; both need the same, one at least"
        )
    seeds = sorted(ours)
    means, lines = [], []
    for seed in seeds:
        if ours[seed].shape != theirs[seed].shape:
            raise ValueError(f"seed {seed}: cannot pair {ours[seed].shape} items with {theirs[seed].shape}")
        difference = ours[seed].astype(np.float64) - theirs[seed]
        both = ~np.isnan(difference)
        if not both.any():
            raise ValueError(f"seed {seed}: cannot pair: no item has a value on both sides")
        weight = np.where(both, 1 if weights is None else weights[seed], 0)
        mean, line = _linearised(np.where(both, difference, 0), weight)
        means.append(mean)
        lines.append(line)
    if same_items or len(seeds) == 1:
        sources = crossed(np.stack(lines))
    else:
        sources = [Source(float(np.var(means, ddof=1)) / len(seeds), len(seeds) - 1)]
    return _difference(float(np.mean(means)), sources, dict(zip(seeds, means, strict=True)))


def _linearised(values_N: np.ndarray, weights_N: np.ndarray) -> tuple[float, np.ndarray]:
    """(weighted mean, numbers whose plain mean it is and whose variance is its own: Taylor's, as for any ratio)."""
    mean = float(np.average(values_N, weights=weights_N))
    return mean, mean + weights_N / weights_N.mean() * (values_N - mean)


@dataclass(frozen=True)
class Source:
    """What a mean owes to one kind of draws."""

    variance: float
    freedom: int


def crossed(values_KN: np.ndarray) -> list[Source]:
    """Of the mean of all values, when the K seeds and the N items are both draws; none for a single value.

    The two-way layout with random effects and one value per cell: σ²_seed/K, σ²_item/N and σ²_rest/KN from the mean
    squares, components below 0 taken for 0. A single line varies over items only, a single column over seeds only.
    """
    seeds, items = values_KN.shape
    if min(seeds, items) == 1:
        draws = values_KN.size
        return [Source(float(values_KN.var(ddof=1)) / draws, draws - 1)] if draws > 1 else []
    of_seed, of_item, mean = values_KN.mean(axis=1), values_KN.mean(axis=0), values_KN.mean()
    rest = values_KN - of_seed[:, None] - of_item + mean
    freedoms = (seeds - 1, items - 1, (seeds - 1) * (items - 1))
    sums = (items * np.square(of_seed - mean).sum(), seeds * np.square(of_item - mean).sum(), np.square(rest).sum())
    squares = [total / freedom for total, freedom in zip(sums, freedoms, strict=True)]
    excess = (max(squares[0] - squares[2], 0), max(squares[1] - squares[2], 0), squares[2])
    return [Source(float(part) / values_KN.size, freedom) for part, freedom in zip(excess, freedoms, strict=True)]


def _difference(mean: float, sources: list[Source], per_seed: dict[int, float]) -> Difference:
    """The interval reaches √Σ (t·stderr)² of the sources (Howe, JASA 1974): each with its own few or many draws."""
    from scipy.stats import t as student  # takes half a second

    if not sources:
        return Difference(mean, None, None, None, per_seed, 0)
    stderr = math.sqrt(math.fsum(source.variance for source in sources))
    quantile = (1 + CONFIDENCE) / 2
    reach = math.sqrt(math.fsum(student.ppf(quantile, one.freedom) ** 2 * one.variance for one in sources))
    low, high = mean - reach, mean + reach
    return Difference(mean, low, high, stderr, per_seed, int(low > 0) - int(high < 0))
