"""Forgetting against its baselines at equal data, steps and seeds: one run per training seed, one table.

Only the seed of the fine-tunes differs between the runs, so split, reference, scores and labels are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow
from prefect.runtime import flow_run

from flows.conclude import conclude
from flows.group import GroupFailedError, GroupOutcome, run_members
from flows.recipes import find_recipe
from forgetting_core.config import Recipe
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe
from tasks.spec import StepResult

MODELS = ("base", "reference", "sft", "ignore", "forget")
"""Compared when nothing is said, and what the recipe has in its `baselines` beside."""
SEEDS = 3
"""How many, counted up from the recipe's own, when nothing is said."""
AGAINST = "sft"
SET_HERE = ("forget.seed", "baselines")


@dataclass
class CompareOutcome(GroupOutcome):
    """What a comparison did; its members are seeds."""

    comparison: StepResult | None = None
    """The step `compare`; None when no run completed."""


@dataclass(frozen=True)
class Asked:
    """What is compared, after looking at the recipe."""

    recipe: Recipe
    seeds: tuple[int, ...]
    models: tuple[str, ...]
    against: str

    def overrides(self, given: Sequence[str], seed: int) -> list[str]:
        """Those of the run of one seed."""
        baselines = ", ".join(model for model in self.models if model != "forget")
        return [*given, f"baselines=[{baselines}]", f"forget.seed={seed}"]


def check_compare(
    recipe: str, seeds: Sequence[int] | None, models: Sequence[str] | None, overrides: Sequence[str]
) -> Asked:
    """Complete what was asked; nothing runs. Raises `InputError` for wrong seeds, models, overrides or recipe."""
    for override in overrides:
        if (field := override.partition("=")[0].strip()) in SET_HERE:
            raise InputError(f"--set {override}: a comparison sets {field} itself; use --seeds and --models")
    loaded = load_recipe(find_recipe(recipe), overrides)
    beside = [name for name in loaded.baselines if name not in MODELS]
    chosen = tuple(dict.fromkeys([*(models or (*MODELS[:-1], *beside)), "forget"]))
    numbers = tuple(seeds or range(loaded.forget.seed, loaded.forget.seed + SEEDS))
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--seeds: {', '.join(map(str, numbers))}; give each seed once")
    against = AGAINST if AGAINST in chosen else chosen[0]
    asked = Asked(loaded, numbers, chosen, against)
    if len(chosen) < 2:
        raise InputError("--models: only forget; name a model to compare it with, such as sft")
    if not loaded.evaluate.tasks and not loaded.split.validation_rows:
        raise InputError(
            f"{recipe}: nothing to compare by: name benchmarks in evaluate.tasks, or set split.validation_rows"
        )
    load_recipe(find_recipe(recipe), asked.overrides(overrides, numbers[0]))
    return asked


@flow(name="compare", flow_run_name="{recipe} compare", persist_result=False)
def compare(
    recipe: str,
    seeds: list[int] | None = None,
    models: list[str] | None = None,
    overrides: list[str] | None = None,
    store: str | None = None,
) -> CompareOutcome:
    """Run `recipe` once per seed and compare; a seed that fails is left out of the table.

    Raises `InputError` and `SourceError` for what is wrong with the recipe, `GroupFailedError` at the end when
    a run failed.
    """
    asked = check_compare(recipe, seeds, models, overrides or [])
    outcome = CompareOutcome("seed", str(flow_run.id), [str(seed) for seed in asked.seeds])
    changes = {str(seed): asked.overrides(overrides or [], seed) for seed in asked.seeds}
    run_members(outcome, recipe, changes, store)
    if outcome.runs and not outcome.interrupted:
        runs = {int(seed): run.flow_run_id for seed, run in outcome.runs.items()}
        outcome.comparison = conclude(asked.recipe, store, runs, asked.models, asked.against)
    if outcome.failures or outcome.interrupted:
        raise GroupFailedError(outcome)
    return outcome
