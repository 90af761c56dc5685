"""Forgetting against its baselines at equal data, steps and seeds: one run per training seed, one table.

Only the seed of the fine-tunes differs between the runs, so split, reference, scores and labels are computed once.
"""

from dataclasses import dataclass

from prefect import flow
from prefect.runtime import flow_run

from flows.asked import check_compare
from flows.conclude import conclude
from flows.failure import was_interrupted
from flows.group import GroupFailedError, GroupOutcome, run_members
from flows.outcome import Outcome
from tasks.compare import COMPARE


@dataclass
class CompareOutcome(GroupOutcome):
    """What a comparison did; its members are seeds. A failure of its last step is among the failures."""

    comparison: Outcome | None = None
    """The run of the step `compare`; None when there was nothing to compare, or it failed."""


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
    something failed.
    """
    asked = check_compare(recipe, seeds, models, overrides or [])
    members = asked.members(overrides or [])
    outcome = CompareOutcome("seed", str(flow_run.id), list(members))
    run_members(outcome, recipe, members, store, head=False)
    if outcome.runs and not outcome.interrupted:
        runs = {int(seed): run.flow_run_id for seed, run in outcome.runs.items()}
        try:
            outcome.comparison = conclude(asked, store, runs)
        except Exception as error:
            outcome.failures[COMPARE.name] = error
            outcome.interrupted = was_interrupted(error)
    if outcome.failures or outcome.interrupted:
        raise GroupFailedError(outcome)
    return outcome
