"""`forgetting sweep`: starts the sweep in this process, shows it, and turns its end into an exit status."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from flows.display import open_display
from flows.failure import INTERRUPTED, command_line, is_mendable, message_of, notes_of
from flows.interrupt import Interrupt
from flows.json_output import print_json
from flows.run import as_document, failure_document
from flows.sweep import SweepFailedError, SweepOutcome, check_sweep, sweep
from flows.sweep_table import sweep_table
from tasks.context import LISTENER


def sweep_recipe(
    recipe: str, rhos: Sequence[str], overrides: Sequence[str], store: str | None, as_json: bool
) -> int:
    """Run and report; the exit status. Raises `InputError` and `SourceError` for what is wrong with the recipe."""
    values = check_sweep(recipe, rhos, overrides)
    Interrupt().listen()
    with open_display(Console(stderr=True)) as display:
        LISTENER.set(display)
        try:
            outcome = sweep(recipe, values, list(overrides), store)
        except SweepFailedError as error:
            outcome = error.outcome
    if as_json:
        print_json(as_sweep_document(outcome))
    else:
        _print_outcome(outcome, Console())
    if not outcome.failures and not outcome.interrupted:
        return 0
    again = command_line("sweep", recipe, overrides, store, "--rho", ",".join(values))
    print("\n".join(_failure_lines(outcome, again)), file=sys.stderr)
    return INTERRUPTED if outcome.interrupted else 1


def as_sweep_document(outcome: SweepOutcome) -> dict[str, Any]:
    """The form of `sweep --json`."""
    return {
        "sweep_id": outcome.sweep_id,
        "runs": {rho: _run_document(outcome, rho) for rho in outcome.rhos},
        "plot": outcome.plot and str(outcome.plot),
    }


def _run_document(outcome: SweepOutcome, rho: str) -> dict[str, Any]:
    if run := outcome.runs.get(rho):
        return as_document(run)
    if failure := outcome.failures.get(rho):
        return failure_document(failure)
    return {"error": "not started: the sweep was interrupted", "steps": {}}


def _print_outcome(outcome: SweepOutcome, console: Console) -> None:
    console.print(sweep_table(outcome))
    for run in list(outcome.runs.values())[-1:]:
        console.print(f"Store:  {run.store}", soft_wrap=True, highlight=False, markup=False)
        console.print(f"MLflow: {run.ui_command}", soft_wrap=True, highlight=False, markup=False)
    chosen = f"tags.prefect_parent_flow_run_id = '{outcome.sweep_id}'"
    console.print(f"        all runs of this sweep: {chosen}", soft_wrap=True, highlight=False, markup=False)
    if outcome.plot:
        console.print(f"Plot:   {outcome.plot} (and .png)", soft_wrap=True, highlight=False, markup=False)


def _failure_lines(outcome: SweepOutcome, again: str) -> Iterator[str]:
    for rho, failure in outcome.failures.items():
        yield f"error: rho {rho}: {message_of(failure)}"
        yield from notes_of(failure)
    if outcome.interrupted or not all(map(is_mendable, outcome.failures.values())):
        yield f"what is done is kept; continue with: {again}"
