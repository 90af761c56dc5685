"""`forgetting compare`: starts the comparison in this process, shows it, and turns its end into an exit status."""

import json
import sys
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console

from flows.asked import check_compare
from flows.compare import CompareOutcome, compare
from flows.compare_table import differences_table, means_table
from flows.display import open_display, print_warnings
from flows.failure import command_line, message_of
from flows.group import GroupFailedError
from flows.group_outcome import exit_status, failure_lines, print_where, run_documents, warnings_of
from flows.interrupt import Interrupt
from flows.json_output import print_json
from forgetting_core.comparison import COMPARISON_FILE, PAGE_FILE
from infra.settings import Settings
from infra.store import Store
from infra.urls import open_objects
from tasks.compare import COMPARE
from tasks.context import LISTENER


def compare_recipe(
    recipe: str,
    seeds: Sequence[int] | None,
    models: Sequence[str] | None,
    overrides: Sequence[str],
    store: str | None,
    as_json: bool,
) -> int:
    """Run and report; the exit status. Raises `InputError` and `SourceError` for what is wrong with the recipe."""
    asked = check_compare(recipe, seeds, models, overrides)
    Interrupt().listen()
    with open_display(Console(stderr=True)) as display:
        LISTENER.set(display)
        try:
            outcome = compare(recipe, list(asked.seeds), list(asked.models), list(overrides), store)
        except GroupFailedError as error:
            outcome = cast(CompareOutcome, error.outcome)
    found = _read(outcome, store)
    if as_json:
        print_json(as_compare_document(outcome, found))
    else:
        _print_outcome(outcome, found, Console())
        print_warnings(warnings_of(outcome))
    if status := exit_status(outcome):
        chosen = ["--seeds", ",".join(map(str, asked.seeds)), "--models", ",".join(asked.models)]
        again = command_line("compare", recipe, overrides, store, *chosen)
        print("\n".join(failure_lines(outcome, again)), file=sys.stderr)
        return status
    return 0


def as_compare_document(outcome: CompareOutcome, comparison: dict[str, Any] | None) -> dict[str, Any]:
    """The form of `compare --json`."""
    failure = outcome.failures.get(COMPARE.name)
    return {
        **({"error": message_of(failure)} if failure else {}),
        "compare_id": outcome.group_id,
        "runs": run_documents(outcome),
        "comparison": comparison,
        "uri": _uri(outcome),
        "mlflow_run_id": outcome.comparison and outcome.comparison.mlflow_run_id,
    }


def _uri(outcome: CompareOutcome) -> str | None:
    return outcome.comparison.steps[COMPARE.name].ref.uri if outcome.comparison else None


def _read(outcome: CompareOutcome, store: str | None) -> dict[str, Any] | None:
    if (uri := _uri(outcome)) is None:
        return None
    opened = Store(open_objects(Settings.from_environment(store=store).store_url))
    found: dict[str, Any] = json.loads(opened.read_file(uri, COMPARISON_FILE))
    return found


def _print_outcome(outcome: CompareOutcome, comparison: dict[str, Any] | None, console: Console) -> None:
    if comparison is not None:
        console.print(means_table(comparison))
        console.print(differences_table(comparison))
        console.print(f"Page:   {_uri(outcome)}/{PAGE_FILE}", soft_wrap=True, highlight=False, markup=False)
    print_where(outcome, console, outcome.comparison)
