"""Runs of one recipe that belong together, one after the other in this process: a sweep's, a comparison's.

Each is a flow run and an MLflow pipeline run of its own, and what they share is computed once, by the first that
needs it. Nothing is kept but what the runs keep: a group that was stopped is continued by starting it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flows.forgetting import forgetting
from flows.outcome import Outcome
from forgetting_core.errors import InputError
from infra.launch import Launcher
from infra.sources import SourceError
from tasks.context import LAUNCHED, LISTENER


@dataclass
class GroupOutcome:
    """What a group of runs did; a member in neither `runs` nor `failures` had not begun when it was interrupted."""

    noun: str
    """What the names of the members are of, such as `rho`."""
    group_id: str
    """The flow run that started them: the tag `prefect_parent_flow_run_id` of their MLflow runs."""
    members: list[str]
    """What tells them apart, such as `0.5`."""
    runs: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Exception] = field(default_factory=dict)
    interrupted: bool = False


class GroupFailedError(Exception):
    """A member failed or the group was interrupted; `outcome` holds what was done."""

    def __init__(self, outcome: GroupOutcome) -> None:
        failed = ", ".join(outcome.failures)
        super().__init__("interrupted" if outcome.interrupted else f"failed for {outcome.noun} {failed}")
        self.outcome = outcome


def run_members(
    outcome: GroupOutcome, recipe: str, overrides: Mapping[str, Sequence[str]], store: str | None
) -> None:
    """Run the recipe once for each of `outcome.members`, with its overrides, into `outcome`.

    One that fails does not take the others down; an interruption ends it all. Raises `InputError` and `SourceError`
    for what is wrong with the recipe for all of them alike.
    """
    for place, name in enumerate(outcome.members, start=1):
        message = f"{place} of {len(outcome.members)}"
        LISTENER.get()(f"{outcome.noun} {name}", {"kind": "note", "message": message})
        stopped = _run_one(outcome, recipe, name, overrides[name], store)
        if stopped and outcome.runs.keys() != set(outcome.members):
            outcome.interrupted = True
            break


def _run_one(outcome: GroupOutcome, recipe: str, name: str, overrides: Sequence[str], store: str | None) -> bool:
    """One member, into `outcome`; whether it was asked to stop."""
    launchers: list[Launcher] = []
    launched = LAUNCHED.get()

    def remember(launcher: Launcher) -> None:
        launchers.append(launcher)
        launched(launcher)

    token = LAUNCHED.set(remember)
    run = forgetting.with_options(flow_run_name=f"{recipe} {outcome.noun}={name}")
    try:
        outcome.runs[name] = run(recipe, list(overrides), store)
    except (InputError, SourceError):
        raise  # not from a step: the recipe is wrong for every member alike
    except Exception as error:
        outcome.failures[name] = error
    finally:
        LAUNCHED.reset(token)
    return any(launcher.stopping.is_set() for launcher in launchers)
