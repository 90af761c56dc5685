"""`forgetting run`: starts the flow in this process, shows it, and turns its end into an exit status."""

import signal
import sys
from collections.abc import Sequence
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL
from rich.console import Console

from flows.display import metrics_table, noise_line, open_display, print_warnings, steps_table
from flows.forgetting import Outcome, StepFailedError, forgetting
from flows.json_output import print_json
from forgetting_core.errors import InputError
from infra.launch import Launcher, StoppedError
from infra.sources import SourceError
from tasks.context import LAUNCHED, LISTENER
from tasks.source import CodeIdentity

INTERRUPTED = 130


def run_recipe(
    recipe: str, overrides: Sequence[str], store: str | None, as_json: bool, code_identity: CodeIdentity = "version"
) -> int:
    """Run and report; the exit status. Raises `InputError` and `SourceError` for what is wrong with the recipe."""
    LAUNCHED.set(_stop_on_interrupt)
    start_embedded_server()
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


def start_embedded_server() -> None:
    """Start Prefect's own embedded server where no other is named, deaf to Ctrl-C.

    A terminal sends the interrupt to every process of its group; the server would end before the steps have saved.
    It inherits the blocked signal, and ends with this process as usual.
    """
    if PREFECT_API_URL.value():
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        SubprocessASGIServer().start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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


def _report_failure(
    failure: StepFailedError,
    recipe: str,
    overrides: Sequence[str],
    store: str | None,
    as_json: bool,
    code_identity: CodeIdentity,
) -> int:
    cause = failure.__cause__
    interrupted = isinstance(cause, StoppedError)
    message = f"{failure.label}: {'interrupted' if interrupted else cause}"
    if as_json:
        print_json({"error": message, "steps": _steps(failure.outcome)})
    again = " ".join(
        [
            "forgetting run",
            recipe,
            *(f"--set {item}" for item in overrides),
            *([f"--store {store}"] if store else []),
            *(["--code-identity source"] if code_identity == "source" else []),
        ]
    )
    lines = [f"error: {message}"]
    mendable = isinstance(cause, InputError | SourceError)
    if not mendable:
        lines += [] if interrupted else getattr(cause, "__notes__", [])
        lines.append(f"{len(failure.outcome.steps)} steps are done and kept; continue with: {again}")
    print("\n".join(lines), file=sys.stderr)
    if interrupted:
        return INTERRUPTED
    return 2 if mendable else 1


def _stop_on_interrupt(launcher: Launcher) -> None:
    """Ctrl-C asks the steps to save and end; a second one ends this process at once."""

    def stop(*_: object) -> None:
        print("\ninterrupted: saving what is done; press Ctrl-C again to give that up", file=sys.stderr)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        launcher.stop()

    signal.signal(signal.SIGINT, stop)
