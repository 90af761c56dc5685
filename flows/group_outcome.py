"""How the command line tells what a group of runs did: as JSON, and what failed."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from flows.failure import INTERRUPTED, is_mendable, message_of, notes_of
from flows.group import GroupOutcome
from flows.outcome import Outcome
from flows.run import as_document, failure_document


def run_documents(outcome: GroupOutcome) -> dict[str, Any]:
    """{member: the form of `run --json`}"""
    return {name: _run_document(outcome, name) for name in outcome.members}


def _run_document(outcome: GroupOutcome, name: str) -> dict[str, Any]:
    if run := outcome.runs.get(name):
        return as_document(run)
    if failure := outcome.failures.get(name):
        return failure_document(failure)
    return {"error": "not started: interrupted before its turn", "steps": {}}


def print_where(outcome: GroupOutcome, console: Console, shown: Outcome | None = None) -> None:
    """The store, a run in MLflow (the last member's, or `shown`), and how to find the others there."""
    if run := shown or next(reversed(outcome.runs.values()), None):
        _line(console, f"Store:  {run.store}")
        _line(console, f"MLflow: {run.ui_command}")
        _line(console, f"        the runs of every {outcome.noun}: {_search(outcome)}")


def _search(outcome: GroupOutcome) -> str:
    return f"tags.prefect_parent_flow_run_id = '{outcome.group_id}'"


def warnings_of(outcome: GroupOutcome) -> list[str]:
    """Those of every run; one that several have is told once, with the members that have it."""
    found: dict[str, list[str]] = {}
    for name, run in outcome.runs.items():
        for warning in run.warnings:
            found.setdefault(warning, []).append(name)
    return [f"{outcome.noun} {', '.join(names)}: {warning}" for warning, names in found.items()]


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def failure_lines(outcome: GroupOutcome, again: str) -> Iterator[str]:
    """What failed; `again` is the command that goes on, where that helps."""
    for name, failure in outcome.failures.items():
        member = f"{outcome.title(name)}: " if name in outcome.members else ""
        yield f"error: {member}{message_of(failure)}"
        yield from notes_of(failure)
    if outcome.interrupted or not all(map(is_mendable, outcome.failures.values())):
        yield f"what is done is kept; continue with: {again}"


def exit_status(outcome: GroupOutcome) -> int:
    """0 when all completed; 2 when none did, for what the user has to mend."""
    if outcome.interrupted:
        return INTERRUPTED
    if not outcome.failures:
        return 0
    return 1 if outcome.runs or not all(map(is_mendable, outcome.failures.values())) else 2
