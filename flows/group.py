"""Runs of one recipe that belong together, one after the other in this process: a sweep's, a comparison's.

Each is a flow run and an MLflow pipeline run of its own, and what they share is computed once, by the first that
needs it. Nothing is kept but what the runs keep: a group that was stopped is continued by starting it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flows.forgetting import forgetting
from flows.outcome import Outcome
from forgetting_core.errors import InputError
from infra.errors import SourceError
from infra.launch import Launcher
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
    """Of members, and of what comes after them."""
    interrupted: bool = False

    def title(self, name: str) -> str:
        """`seed 43`, of a member; any other name as it is."""
        return f"{self.noun} {name}" if name in self.members else name


class GroupFailedError(Exception):
    """A member failed or the group was interrupted; `outcome` holds what was done."""

    def __init__(self, outcome: GroupOutcome) -> None:
        failed = ", ".join(outcome.title(name) for name in outcome.failures)
        super().__init__("interrupted" if outcome.interrupted else f"failed: {failed}")
        self.outcome = outcome


def run_members(
    outcome: GroupOutcome,
    recipe: str,
    overrides: Mapping[str, Sequence[str]],
    store: str | None,
    *,
    head: bool = True,
) -> None:
    """Run the recipe once for each of `outcome.members`, with its overrides, into `outcome`.

    One that fails does not take the others down; an interruption ends it all. Without `head`, none of them becomes
    the recipe's last run and current model: see `member` of the flow. Raises `InputError` and `SourceError` for
    what is wrong with the recipe for all of them alike.
    """
    for place, name in enumerate(outcome.members, start=1):
        message = f"{place} of {len(outcome.members)}"
        LISTENER.get()(outcome.title(name), {"kind": "note", "message": message})
        stopped = _run_one(outcome, recipe, name, overrides[name], store, head)
        if stopped and outcome.runs.keys() != set(outcome.members):
            outcome.interrupted = True
            break


def _run_one(
    outcome: GroupOutcome, recipe: str, name: str, overrides: Sequence[str], store: str | None, head: bool
) -> bool:
    """One member, into `outcome`; whether it was asked to stop."""
    launchers: list[Launcher] = []
    launched = LAUNCHED.get()

    def remember(launcher: Launcher) -> None:
        launchers.append(launcher)
        launched(launcher)

    token = LAUNCHED.set(remember)
    title = f"{outcome.noun}={name}"
    run = forgetting.with_options(flow_run_name=f"{recipe} {title}")
    try:
        outcome.runs[name] = run(recipe, list(overrides), store, member=None if head else title)
    except (InputError, SourceError):
        raise  # not from a step: the recipe is wrong for every member alike
    except Exception as error:
        outcome.failures[name] = error
    finally:
        LAUNCHED.reset(token)
    return any(launcher.stopping.is_set() for launcher in launchers)
