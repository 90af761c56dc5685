"""How much better one model is than another on the same items, and how sure that is over items and training seeds.

Both were asked the same questions and trained with the same seeds, so differences are taken item by item: what
makes a question hard cancels out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Values = Mapping[int, np.ndarray]
"""{training seed: a number per item}"""
CONFIDENCE = 0.95
RESAMPLES = 10_000
_CELLS = 4_000_000
"""Of one block of draws; bounds memory."""


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs, with the interval of `CONFIDENCE`."""

    mean: float
    low: float
    high: float
    stderr: float
    per_seed: dict[int, float]

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_difference(
    ours: Values,
    theirs: Values,
    *,
    weights: Values | None = None,
    same_items: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The mean over seeds of the weighted mean over items of `ours - theirs`; a percentile interval by bootstrap.

    Values are float (items,) for each seed, in the same order of items on both sides; an item that is NaN on either
    side is left out. `weights` likewise, 1 when left out. Items are drawn with replacement, and seeds as clusters:
    K − 1 of K, which makes the variance over few clusters come out right (Rao & Wu, Resampling Inference With
    Complex Survey Data, JASA 1988). With `same_items` all seeds were asked the same items, which are then drawn
    once for all (Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 2007). With a single seed the
    interval is over items only.

    Raises `ValueError` when the two sides differ in seeds or in the number of items, or have no item in common.
    """
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(
            f"cannot pair seeds {sorted(ours)} with {sorted(theirs)}; both need the same, one at least"
        )
    seeds = sorted(ours)
    differences, weighed = [], []
    for one in seeds:
        if ours[one].shape != theirs[one].shape:
            raise ValueError(f"seed {one}: cannot pair {ours[one].shape} items with {theirs[one].shape}")
        difference = ours[one].astype(np.float64) - theirs[one]
        both = ~np.isnan(difference)
        if not both.any():
            raise ValueError(f"seed {one}: cannot pair: no item has a value on both sides")
        differences.append(np.where(both, difference, 0))
        weighed.append(np.where(both, 1 if weights is None else weights[one], 0))
    per_seed = [float(np.average(d, weights=w)) for d, w in zip(differences, weighed, strict=True)]
    random = np.random.default_rng(seed)
    if same_items:
        means = _resampled(np.stack(differences), np.stack(weighed), resamples, random)
    else:
        means = np.concatenate(
            [_resampled(d[None], w[None], resamples, random) for d, w in zip(differences, weighed, strict=True)],
            axis=1,
        )
    if len(seeds) > 1:
        drawn = random.integers(len(seeds), size=(resamples, len(seeds) - 1))
        means = np.take_along_axis(means, drawn, axis=1)
    found = means.mean(axis=1)
    found = found[~np.isnan(found)]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(
        mean=float(np.mean(per_seed)),
        low=float(low),
        high=float(high),
        stderr=float(found.std(ddof=1)),
        per_seed=dict(zip(seeds, per_seed, strict=True)),
    )


def _resampled(
    values_KN: np.ndarray, weights_KN: np.ndarray, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """Weighted means (resamples, K) of the K lines of values over items that are drawn once for all lines."""
    items = values_KN.shape[1]
    block = max(1, _CELLS // items)
    means = []
    for start in range(0, resamples, block):
        counts_RN = random.multinomial(items, np.full(items, 1 / items), size=min(block, resamples - start))
        total_RK = counts_RN @ weights_KN.T
        with np.errstate(invalid="ignore"):  # a draw without any item that counts is NaN, and says nothing
            means.append(counts_RN @ (weights_KN * values_KN).T / total_RK)
    return np.concatenate(means)
