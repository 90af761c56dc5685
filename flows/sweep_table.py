"""The table at the end of a sweep: a row per ρ, and the models that do not depend on it."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from flows.display import headline_columns, metric_cells
from flows.failure import was_interrupted
from flows.outcome import Outcome
from flows.sweep import SweepOutcome

COMPARED = ("sft", "base")


def sweep_table(outcome: SweepOutcome) -> Table:
    """ρ, positive tokens, how many steps ran and were cached, the metrics of `forget`; then sft and base."""
    columns = headline_columns(tasks for run in outcome.runs.values() for tasks in run.metrics.values())
    table = Table("ρ", title="Sweep", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("positive tokens", "ran", "cached"):
        table.add_column(name, justify="right")
    for task, name in columns:
        table.add_column(f"{escape(task)}\n{escape(name)}", justify="right")
    for rho in outcome.members:
        if run := outcome.runs.get(rho):
            cells = metric_cells(run.metrics["forget"], columns)
            table.add_row(rho, f"{_positive_tokens(run):,}", *_states(run), *cells)
        else:
            table.add_row(rho, f"[bold red]{_why_not(outcome.failures.get(rho))}[/]")
    for run in list(outcome.runs.values())[-1:]:
        table.add_section()
        for model in [name for name in COMPARED if name in run.metrics]:
            table.add_row(model, "", "", "", *metric_cells(run.metrics[model], columns))
    return table


def _positive_tokens(run: Outcome) -> int:
    return int(run.steps["partition"].summary["positive_tokens"])


def _states(run: Outcome) -> tuple[str, str]:
    states = [result.state for result in run.steps.values()]
    return str(states.count("ran")), str(states.count("cached"))


def _why_not(failure: Exception | None) -> str:
    if failure is None:
        return "not started"
    return "interrupted" if was_interrupted(failure) else "failed"
