"""One run per ρ, one after the other, so that the steps that do not see ρ are computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.group import GroupFailedError, GroupOutcome, run_members
from flows.recipes import find_recipe
from flows.sweep_plot import plot_sweep
from forgetting_core.config import canonical_share
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe
from infra.settings import Settings

SWEPT = "partition.rho"


@dataclass
class SweepOutcome(GroupOutcome):
    """What a sweep did; its members are the values of ρ."""

    plot: Path | None = None
    """SVG, a PNG of the same name beside it; None without metrics."""


def rho_values(given: Sequence[str]) -> list[str]:
    """The values in canonical form, in the order given. Raises `InputError` for wrong and equal ones."""
    found: list[str] = []
    for text in given:
        try:
            rho = canonical_share(text)
        except ValueError as error:
            raise InputError(f"--rho: {text.strip()!r}: {error}; separate several by commas: 0.3,0.5") from error
        if rho in found:
            raise InputError(f"--rho: {text.strip()} is {rho}, which is there already; give each value once")
        found.append(rho)
    if not found:
        raise InputError("--rho: no value; expected numbers from 0 to 1, such as 0.3,0.5,0.7")
    return found


def check_sweep(recipe: str, rhos: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The canonical values; nothing runs. Raises `InputError` for a wrong ρ, override or recipe."""
    values = rho_values(rhos)
    for override in overrides:
        if override.partition("=")[0].strip() == SWEPT:
            raise InputError(f"--set {override}: a sweep sets {SWEPT} itself; list the values in --rho")
    for rho in values:
        load_recipe(find_recipe(recipe), with_rho(overrides, rho))
    return values


@flow(name="sweep", flow_run_name="{recipe} sweep", persist_result=False)
def sweep(
    recipe: str, rhos: list[str], overrides: list[str] | None = None, store: str | None = None
) -> SweepOutcome:
    """Run `recipe` for each of `rhos`; see `flows.group.run_members`.

    Raises `InputError` and `SourceError` for what is wrong with the recipe, `GroupFailedError` at the end.
    """
    values = check_sweep(recipe, rhos, overrides or [])
    outcome = SweepOutcome("rho", str(flow_run.id), values)
    run_members(outcome, recipe, {rho: with_rho(overrides or [], rho) for rho in values}, store)
    name = load_recipe(find_recipe(recipe), overrides or []).name
    folder = Settings.from_environment().state_dir / "sweeps"
    metrics = {rho: run.metrics for rho, run in outcome.runs.items()}
    outcome.plot = plot_sweep(metrics, name, folder / f"{name}-{outcome.group_id}.svg")
    if outcome.failures or outcome.interrupted:
        raise GroupFailedError(outcome)
    return outcome


def with_rho(overrides: Sequence[str], rho: str) -> list[str]:
    """The overrides of one run of a sweep."""
    return [*overrides, f'{SWEPT}="{rho}"']
