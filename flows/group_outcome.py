"""How the command line tells what a group of runs did: as JSON, and what failed."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from flows.failure import INTERRUPTED, is_mendable, message_of, notes_of
from flows.group import GroupOutcome
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


def print_where(outcome: GroupOutcome, console: Console) -> None:
    """The store, and how to find all runs of the group in MLflow."""
    for run in list(outcome.runs.values())[-1:]:
        _line(console, f"Store:  {run.store}")
        _line(console, f"MLflow: {run.ui_command}")
    _line(console, f"        all of its runs: tags.prefect_parent_flow_run_id = '{outcome.group_id}'")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


def failure_lines(outcome: GroupOutcome, again: str) -> Iterator[str]:
    """What failed; `again` is the command that goes on, where that helps."""
    for name, failure in outcome.failures.items():
        yield f"error: {outcome.noun} {name}: {message_of(failure)}"
        yield from notes_of(failure)
    if outcome.interrupted or not all(map(is_mendable, outcome.failures.values())):
        yield f"what is done is kept; continue with: {again}"


def exit_status(outcome: GroupOutcome) -> int:
    """0 when every member completed."""
    if outcome.interrupted:
        return INTERRUPTED
    return 1 if outcome.failures else 0
