"""One run per ρ, one after the other, so that the steps that do not see ρ are computed once.

Each ρ is a flow run and an MLflow pipeline run of its own. Nothing is kept but what the runs keep: a sweep that was
stopped is continued by starting it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.forgetting import forgetting
from flows.outcome import Outcome
from flows.recipes import find_recipe
from flows.sweep_plot import plot_sweep
from forgetting_core.config import canonical_share
from forgetting_core.errors import InputError
from forgetting_core.recipe import load_recipe
from infra.launch import Launcher
from infra.settings import Settings
from infra.sources import SourceError
from tasks.context import LAUNCHED, LISTENER

SWEPT = "partition.rho"


@dataclass
class SweepOutcome:
    """What a sweep did; a ρ in neither `runs` nor `failures` was not started before an interruption."""

    sweep_id: str
    """Its flow run: the tag `prefect_parent_flow_run_id` of its MLflow runs."""
    rhos: list[str]
    runs: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    interrupted: bool = False
    plot: Path | None = None
    """SVG, a PNG of the same name beside it; None without metrics."""


class SweepFailedError(Exception):
    """A ρ failed or the sweep was interrupted; `outcome` holds what was done."""

    def __init__(self, outcome: SweepOutcome) -> None:
        failed = ", ".join(outcome.failures)
        super().__init__("the sweep was interrupted" if outcome.interrupted else f"failed for rho {failed}")
        self.outcome = outcome


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
    """Run `recipe` for each of `rhos`. A ρ that fails does not take the others down; an interruption ends it all.

    Raises `InputError` and `SourceError` for what is wrong with the recipe, `SweepFailedError` at the end.
    """
    values = check_sweep(recipe, rhos, overrides or [])
    outcome = SweepOutcome(str(flow_run.id), values)
    for place, rho in enumerate(values, start=1):
        LISTENER.get()("sweep", {"kind": "note", "message": f"ρ = {rho} ({place} of {len(values)})"})
        stopped = _run_one(outcome, recipe, rho, overrides or [], store)
        if stopped and outcome.runs.keys() != set(values):
            outcome.interrupted = True
            break
    name = load_recipe(find_recipe(recipe), overrides or []).name
    folder = Settings.from_environment().state_dir / "sweeps"
    metrics = {rho: run.metrics for rho, run in outcome.runs.items()}
    outcome.plot = plot_sweep(metrics, name, folder / f"{name}-{outcome.sweep_id}.svg")
    if outcome.failures or outcome.interrupted:
        raise SweepFailedError(outcome)
    return outcome


def _run_one(outcome: SweepOutcome, recipe: str, rho: str, overrides: Sequence[str], store: str | None) -> bool:
    """One ρ, into `outcome`; whether it was asked to stop."""
    launchers: list[Launcher] = []
    launched = LAUNCHED.get()

    def remember(launcher: Launcher) -> None:
        launchers.append(launcher)
        launched(launcher)

    token = LAUNCHED.set(remember)
    run = forgetting.with_options(flow_run_name=f"{recipe} ρ={rho}")
    try:
        outcome.runs[rho] = run(recipe, with_rho(overrides, rho), store)
    except (InputError, SourceError):
        raise  # not from a step: the recipe is wrong for every ρ alike
    except Exception as error:
        outcome.failures[rho] = error
    finally:
        LAUNCHED.reset(token)
    return any(launcher.stopping.is_set() for launcher in launchers)


def with_rho(overrides: Sequence[str], rho: str) -> list[str]:
    """The overrides of one run of a sweep."""
    return [*overrides, f'{SWEPT}="{rho}"']
