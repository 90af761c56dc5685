"""What a comparison is asked for, completed and checked before anything runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from flows.recipes import find_recipe
from forgetting_core.config import Baseline, Recipe
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe

OWN = "forget"
"""The recipe's own model; always compared, and last."""
USUAL = ("base", "reference", "sft", "ignore")
"""Compared with it when nothing is said, and what the recipe has in its `baselines` beside."""
SEEDS = 3
"""How many, counted up from the recipe's own, when nothing is said."""
AGAINST = "sft"
SET_HERE = ("forget.seed", "baselines")


@dataclass(frozen=True)
class Asked:
    """One comparison."""

    recipe: Recipe
    seeds: tuple[int, ...]
    models: tuple[str, ...]
    """In the order of the table."""
    against: str
    """The model that the others are compared with."""

    def members(self, given: Sequence[str]) -> dict[str, list[str]]:
        """{seed: the overrides of its run}, those that were `given` among them."""
        baselines = f"baselines={json.dumps([model for model in self.models if model != OWN])}"
        return {str(seed): [*given, baselines, f"forget.seed={seed}"] for seed in self.seeds}


def check_compare(
    recipe: str, seeds: Sequence[int] | None, models: Sequence[str] | None, overrides: Sequence[str]
) -> Asked:
    """Complete what was asked. Raises `InputError` for wrong seeds, models, overrides or recipe."""
    for override in overrides:
        if (field := override.partition("=")[0].strip()) in SET_HERE:
            raise InputError(f"--set {override}: a comparison sets {field} itself; use --seeds and --models")
    loaded = load_recipe(find_recipe(recipe), overrides)
    if not loaded.evaluate.tasks and not loaded.split.validation_rows:
        raise InputError(
            f"{recipe}: nothing to compare by: name benchmarks in evaluate.tasks, or set split.validation_rows"
        )
    chosen = _models(loaded, models)
    asked = Asked(loaded, _seeds(loaded, seeds), chosen, AGAINST if AGAINST in chosen else chosen[0])
    for changes in asked.members(overrides).values():
        load_recipe(find_recipe(recipe), changes)
    return asked


def _models(recipe: Recipe, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        return (*USUAL, *(name for name in recipe.baselines if name not in USUAL), OWN)
    known = get_args(Baseline)
    for name in given:
        if name not in (*known, OWN):
            raise InputError(
                f"--models: {name!r} is none; expected some of {', '.join(known)}, separated by commas"
            )
    if len(set(given)) < len(given):
        raise InputError(f"--models: {', '.join(given)}; give each model once")
    others = [name for name in given if name != OWN]
    if not others:
        raise InputError("--models: nothing to compare forget with; name one at least, such as sft")
    return (*others, OWN)


def _seeds(recipe: Recipe, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        return tuple(range(recipe.forget.seed, recipe.forget.seed + SEEDS))
    if not given or len(set(given)) < len(given):
        raise InputError(f"--seeds: {', '.join(map(str, given)) or 'none'}; give one seed at least, and each once")
    return tuple(given)
