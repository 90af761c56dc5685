"""Paired differences between models over items and seeds."""

import numpy as np
import pytest
from scipy import stats

from forgetting_core.comparison import paired_difference


def _answers(random: np.random.Generator, seeds: int, items: int, skill: float) -> dict[int, np.ndarray]:
    return {seed: (random.random(items) < skill).astype(float) for seed in range(seeds)}


def test_with_one_seed_the_interval_is_that_of_scipys_bootstrap_over_items() -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random(300), random.random(300) - 0.1
    found = paired_difference({7: ours}, {7: theirs})
    wanted = stats.bootstrap((ours - theirs,), np.mean, method="percentile", rng=2, n_resamples=10_000)
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=2e-3)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=2e-3)
    assert found.per_seed == {7: pytest.approx(found.mean)}
    assert found.sign == 1


def test_seeds_that_disagree_widen_the_interval_to_the_spread_between_them() -> None:
    ours = {seed: np.full(50, value) for seed, value in enumerate([0.1, 0.5, 0.3, 0.2])}
    theirs = {seed: np.zeros(50) for seed in ours}
    found = paired_difference(ours, theirs)
    per_seed = np.array([0.1, 0.5, 0.3, 0.2])
    assert found.mean == pytest.approx(per_seed.mean())
    # all items alike: what is left is the standard error of a mean over four seeds
    assert found.stderr == pytest.approx(per_seed.std(ddof=1) / 2, rel=0.03)


@pytest.mark.parametrize("same_items", [False, True])
def test_intervals_of_equal_models_leave_out_zero_about_as_often_as_they_may(same_items: bool) -> None:
    random = np.random.default_rng(3)
    trials, wrong = 150, 0
    for _ in range(trials):
        hardness = random.random(80) if same_items else None

        def asked(hardness: np.ndarray | None = hardness) -> dict[int, np.ndarray]:
            of_item = [random.random(80) if hardness is None else hardness for _ in range(6)]
            return {seed: (random.random(80) < of_item[seed] + random.normal(0, 0.1)) * 1.0 for seed in range(6)}

        wrong += paired_difference(asked(), asked(), same_items=same_items, resamples=400).sign != 0
    assert wrong <= 0.12 * trials


def test_items_shared_by_all_seeds_do_not_count_as_new_ones_for_each_seed() -> None:
    random = np.random.default_rng(4)
    easy = random.random(60)
    ours, theirs = dict.fromkeys(range(8), easy), {seed: np.zeros(60) for seed in range(8)}
    shared = paired_difference(ours, theirs, same_items=True)
    assert shared.stderr == pytest.approx(easy.std() / np.sqrt(60), rel=0.05)
    assert paired_difference(ours, theirs).stderr < 0.6 * shared.stderr


def test_weights_make_a_mean_over_tokens_of_a_mean_over_rows() -> None:
    ours, theirs = {0: np.array([1.0, 3.0])}, {0: np.array([0.0, 0.0])}
    found = paired_difference(ours, theirs, weights={0: np.array([3.0, 1.0])})
    assert found.mean == pytest.approx(1.5)
    assert 1.0 <= found.low <= found.high <= 3.0


@pytest.mark.parametrize("same_items", [False, True])
def test_an_item_without_a_value_on_one_side_is_left_out(same_items: bool) -> None:
    random = np.random.default_rng(5)
    ours = {seed: random.random(40) for seed in range(3)}
    theirs = {seed: random.random(40) for seed in range(3)}
    for seed in ours:
        ours[seed][seed], theirs[seed][10 + seed] = np.nan, np.nan
    found = paired_difference(ours, theirs, same_items=same_items)
    for seed, mean in found.per_seed.items():
        kept = np.delete(np.arange(40), [seed, 10 + seed])
        assert mean == pytest.approx((ours[seed] - theirs[seed])[kept].mean())
    assert found.low < found.mean < found.high


def test_what_cannot_be_paired_is_refused() -> None:
    one = {0: np.zeros(3)}
    for other in ({1: np.zeros(3)}, {0: np.zeros(4)}, {0: np.full(3, np.nan)}, {}):
        with pytest.raises(ValueError, match="cannot pair"):
            paired_difference(one, other)
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference({}, {})
