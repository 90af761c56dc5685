"""`forgetting run`: starts the flow in this process, shows it, and turns its end into an exit status."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from flows.display import metrics_table, noise_line, open_display, print_warnings, steps_table
from flows.failure import INTERRUPTED, command_line, is_mendable, message_of, notes_of, was_interrupted
from flows.forgetting import forgetting
from flows.interrupt import Interrupt
from flows.json_output import print_json
from flows.outcome import Outcome, StepFailedError
from tasks.context import LISTENER
from tasks.source import CodeIdentity


def run_recipe(
    recipe: str, overrides: Sequence[str], store: str | None, as_json: bool, code_identity: CodeIdentity = "version"
) -> int:
    """Run and report; the exit status. Raises `InputError` and `SourceError` for what is wrong with the recipe."""
    Interrupt().listen()
    with open_display(Console(stderr=True)) as display:
        LISTENER.set(display)
        try:
            outcome = forgetting(recipe, list(overrides), store, code_identity)
        except StepFailedError as error:
            return _report_failure(error, recipe, overrides, store, as_json, code_identity)
    if as_json:
        print_json(as_document(outcome))
    else:
        _print_outcome(outcome, Console())
        print_warnings(outcome.warnings)
    return 0


def as_document(outcome: Outcome) -> dict[str, Any]:
    """The form of `run --json`."""
    return {
        "flow_run_id": outcome.flow_run_id,
        "mlflow_run_id": outcome.mlflow_run_id,
        "store": outcome.store,
        "steps": _steps(outcome),
        "metrics": outcome.metrics,
        **({"noise": noise} if (noise := _noise(outcome)) else {}),
        "warnings": outcome.warnings,
    }


def _steps(outcome: Outcome) -> dict[str, Any]:
    return {
        label: {
            "state": result.state,
            "uri": result.ref.uri,
            "digest": result.ref.digest,
            "fingerprint": result.fingerprint,
            "seconds": result.seconds,
        }
        for label, result in outcome.steps.items()
    }


def _noise(outcome: Outcome) -> dict[str, float] | None:
    report = outcome.steps.get("report")
    return report.summary.get("noise") if report else None


def _print_outcome(outcome: Outcome, console: Console) -> None:
    console.print(steps_table(outcome.steps, outcome.store))
    if any(outcome.metrics.values()):
        console.print(metrics_table(outcome.metrics))
    if noise := _noise(outcome):
        console.print(noise_line(noise), highlight=False)
    console.print(f"Store:  {outcome.store}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {outcome.steps['report'].ref.uri}/report.html", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {outcome.ui_command}", soft_wrap=True, highlight=False, markup=False)


def failure_document(failure: Exception) -> dict[str, Any]:
    """The form of `run --json` for a run that failed: why, and what was done."""
    steps = _steps(failure.outcome) if isinstance(failure, StepFailedError) else {}
    return {"error": message_of(failure), "steps": steps}


def _report_failure(
    failure: StepFailedError,
    recipe: str,
    overrides: Sequence[str],
    store: str | None,
    as_json: bool,
    code_identity: CodeIdentity,
) -> int:
    if as_json:
        print_json(failure_document(failure))
    lines = [f"error: {message_of(failure)}", *notes_of(failure)]
    if not is_mendable(failure):
        options = ["--code-identity", "source"] if code_identity == "source" else []
        again = command_line("run", recipe, overrides, store, *options)
        lines.append(f"{len(failure.outcome.steps)} steps are done and kept; continue with: {again}")
    print("\n".join(lines), file=sys.stderr)
    if was_interrupted(failure):
        return INTERRUPTED
    return 2 if is_mendable(failure) else 1
