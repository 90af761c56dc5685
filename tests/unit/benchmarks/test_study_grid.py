"""The grid of the controlled study: complete, nothing twice, the most telling first."""

import pytest

from benchmarks.study.grid import CLEAN, FORGETTING, NOISES, NOISY, RECIPE, SEEDS, Run, full_grid, quick_grid
from flows.dag import models_of
from flows.recipes import find_recipe
from forgetting_core.config import Recipe, identity
from forgetting_core.recipe import load_recipe


def recipe_of(run: Run) -> Recipe:
    return load_recipe(find_recipe(RECIPE), run.overrides)


@pytest.fixture(scope="module")
def grid() -> list[Run]:
    return full_grid()


def test_every_noise_and_reference_has_every_rho_with_every_way_to_forget(grid: list[Run]) -> None:
    found = {
        (run.noise, run.reference, run.rho, arm.name, run.seed) for run in grid for arm in run.kind.arms.values()
    }
    conditions = {(noise, CLEAN) for noise in NOISES} | {(noise, NOISY) for noise in NOISES if noise != "0"}
    expected = {
        (*condition, rho, arm, seed)
        for condition in conditions
        for rho in ("0.3", "0.5", "0.7", "0.9")
        for arm in (*FORGETTING, "ignore")
        for seed in SEEDS
    }
    assert expected <= found


def test_no_run_is_another_one_under_another_name(grid: list[Run]) -> None:
    seed = [run for run in grid if run.seed == 1]
    assert len({str(identity(recipe_of(run))) for run in seed}) == len(seed)


def test_each_run_trains_the_models_that_the_table_expects_of_it(grid: list[Run]) -> None:
    for run in [run for run in grid if run.seed == 1] + quick_grid():
        assert set(run.kind.arms) == set(models_of(recipe_of(run)))


def test_a_seed_changes_corpus_base_model_split_order_and_random_labels(grid: list[Run]) -> None:
    for run in grid[: len(SEEDS)]:
        recipe = recipe_of(run)
        assert recipe.synthetic is not None
        sections = (recipe.synthetic, recipe.split, recipe.reference, recipe.partition, recipe.forget)
        assert {section.seed for section in sections} == {run.seed}


def test_an_interrupted_study_has_much_noise_and_both_references_for_all_seeds(grid: list[Run]) -> None:
    first = [run for run in grid if run.noise == "0.3"][: 4 * len(SEEDS)]
    assert {(run.reference, run.seed) for run in first} == {
        (name, seed) for name in (CLEAN, NOISY) for seed in SEEDS
    }
    assert {run.rho for run in grid[: len(grid) // 4]} == {"0.7"}
