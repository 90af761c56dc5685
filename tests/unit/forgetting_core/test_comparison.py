"""Paired differences between models over items and seeds."""

import numpy as np
import pytest
from scipy import stats

from forgetting_core.comparison import paired_difference
from forgetting_core.comparison.paired import crossed

ITEMS = 60


def nothing(values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    return {seed: np.zeros(len(of_seed)) for seed, of_seed in values.items()}


def test_with_one_seed_the_interval_is_the_paired_t_test_over_items() -> None:
    random = np.random.default_rng(1)
    ours, theirs = random.random(300), random.random(300) - 0.1
    found = paired_difference({7: ours}, {7: theirs})
    wanted = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.per_seed == {7: pytest.approx((ours - theirs).mean())}
    assert found.sign == 1


def test_with_items_of_their_own_seeds_are_the_draws_of_a_t_test() -> None:
    random = np.random.default_rng(2)
    ours = {seed: random.random(ITEMS) for seed in range(5)}
    theirs = {seed: random.random(ITEMS) for seed in range(5)}
    per_seed = [float((ours[seed] - theirs[seed]).mean()) for seed in range(5)]
    wanted = stats.ttest_1samp(per_seed, 0).confidence_interval(0.95)
    found = paired_difference(ours, theirs)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("same_items", [False, True])
@pytest.mark.parametrize("of_seeds", [0.3, 0.02])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_of_95_percent_misses_the_truth_about_once_in_twenty(
    seeds: int, of_seeds: float, same_items: bool
) -> None:
    random = np.random.default_rng(3)
    trials, missed = 400, 0
    for _ in range(trials):
        shared = random.normal(0, 1, ITEMS)
        ours = {
            seed: random.normal(0, of_seeds)
            + (shared if same_items else random.normal(0, 1, ITEMS))
            + random.normal(0, 0.2, ITEMS)
            for seed in range(seeds)
        }
        missed += paired_difference(ours, nothing(ours), same_items=same_items).sign != 0
    # of 400 draws at 5 %, fewer than 8 or more than 36 come once in ten thousand times
    assert 8 <= missed <= 36


def test_items_shared_by_all_seeds_do_not_count_as_new_ones_for_each_seed() -> None:
    easy = np.random.default_rng(4).random(ITEMS)
    ours = dict.fromkeys(range(8), easy)
    shared = paired_difference(ours, nothing(ours), same_items=True)
    assert shared.stderr == pytest.approx(stats.sem(easy))


def test_the_variance_over_seeds_and_items_is_that_of_the_two_way_layout() -> None:
    random = np.random.default_rng(5)
    seeds, items, draws = 4, 30, 4000
    means, variances = [], []
    for _ in range(draws):
        values = (
            random.normal(0, 0.5, (seeds, 1)) + random.normal(0, 1, items) + random.normal(0, 1, (seeds, items))
        )
        means.append(values.mean())
        variances.append(sum(source.variance for source in crossed(values)))
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.1)


def test_weights_make_a_mean_over_tokens_of_a_mean_over_rows() -> None:
    from forgetting_core.evaluation.held_out import ratio_with_stderr

    random = np.random.default_rng(6)
    tokens, loss = random.integers(1, 50, 200).astype(float), random.random(200)
    found = paired_difference({0: loss}, {0: np.zeros(200)}, weights={0: tokens})
    mean, stderr = ratio_with_stderr(loss * tokens, tokens)
    assert (found.mean, found.stderr) == pytest.approx((mean, stderr))


@pytest.mark.parametrize("same_items", [False, True])
def test_an_item_without_a_value_on_one_side_is_left_out(same_items: bool) -> None:
    random = np.random.default_rng(7)
    ours = {seed: random.random(40) for seed in range(3)}
    theirs = {seed: random.random(40) for seed in range(3)}
    for seed in ours:
        ours[seed][seed], theirs[seed][10 + seed] = np.nan, np.nan
    found = paired_difference(ours, theirs, same_items=same_items)
    for seed, mean in found.per_seed.items():
        kept = np.delete(np.arange(40), [seed, 10 + seed])
        assert mean == pytest.approx((ours[seed] - theirs[seed])[kept].mean())
    assert found.low is not None and found.high is not None
    assert found.low < found.mean < found.high


def test_one_draw_has_no_error_and_is_never_sure() -> None:
    found = paired_difference({0: np.array([1.0])}, {0: np.array([0.0])})
    assert (found.mean, found.low, found.high, found.stderr, found.sign) == (1.0, None, None, None, 0)


def test_what_cannot_be_paired_is_refused() -> None:
    one = {0: np.zeros(3)}
    for other in ({1: np.zeros(3)}, {0: np.zeros(4)}, {0: np.full(3, np.nan)}, {}):
        with pytest.raises(ValueError, match="cannot pair"):
            paired_difference(one, other)
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference({}, {})
