"""`forgetting sweep`: starts the sweep in this process, shows it, and turns its end into an exit status."""

import sys
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console

from flows.display import open_display, print_warnings
from flows.failure import command_line
from flows.group import GroupFailedError
from flows.group_outcome import exit_status, failure_lines, print_where, run_documents, warnings_of
from flows.interrupt import Interrupt
from flows.json_output import print_json
from flows.sweep import SweepOutcome, check_sweep, sweep
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
        except GroupFailedError as error:
            outcome = cast(SweepOutcome, error.outcome)
    if as_json:
        print_json(as_sweep_document(outcome))
    else:
        _print_outcome(outcome, Console())
        print_warnings(warnings_of(outcome))
    if status := exit_status(outcome):
        again = command_line("sweep", recipe, overrides, store, "--rho", ",".join(values))
        print("\n".join(failure_lines(outcome, again)), file=sys.stderr)
        return status
    return 0


def as_sweep_document(outcome: SweepOutcome) -> dict[str, Any]:
    """The form of `sweep --json`."""
    return {
        "sweep_id": outcome.group_id,
        "runs": run_documents(outcome),
        "plot": outcome.plot and str(outcome.plot),
    }


def _print_outcome(outcome: SweepOutcome, console: Console) -> None:
    console.print(sweep_table(outcome))
    print_where(outcome, console)
    if outcome.plot:
        console.print(f"Plot:   {outcome.plot} (and .png)", soft_wrap=True, highlight=False, markup=False)
