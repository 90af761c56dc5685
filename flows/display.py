"""What a person sees of a run: a bar per step on a terminal, plain lines elsewhere, tables at the end.

Everything that moves goes to standard error; standard output is for results.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from forgetting_core.evaluation import is_headline, is_shown

SECONDS_BETWEEN_LINES = 10.0
STATE_STYLES = {"ran": "green", "cached": "cyan", "evicted": "magenta", "failed": "bold red"}


class RateColumn(ProgressColumn):
    """Units per second, such as `1 234 tokens/s`."""

    def render(self, task: Task) -> Text:
        """The rate over the last while."""
        if not task.speed:
            return Text("")
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s".replace(",", " "), style="progress.data.speed")


class BarDisplay:
    """A bar per running step."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "BarDisplay":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, step: str, message: Mapping[str, Any]) -> None:
        """See `tasks.context.Listener`."""
        kind = message["kind"]
        if kind == "start":
            self._tasks[step] = self._progress.add_task(step, total=None, unit="")
        elif kind == "advance":
            self._progress.update(
                self._tasks[step], completed=message["done"], total=message["total"], unit=message["unit"]
            )
        elif kind == "note":
            self._progress.console.print(f"[bold]{escape(step)}[/]: {escape(message['message'])}")
        elif kind == "wait":
            self._progress.console.print(f"[bold]{escape(step)}[/]: {escape(_waiting(message))}")
        elif kind in STATE_STYLES:
            if step in self._tasks:
                self._progress.remove_task(self._tasks.pop(step))
            self._progress.console.print(_state_line(step, message))


class LineDisplay:
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: str, message: Mapping[str, Any]) -> None:
        """See `tasks.context.Listener`."""
        kind = message["kind"]
        if kind == "start":
            self._last[step] = time.monotonic()
            self._print(f"{step}: started")
        elif kind == "advance" and time.monotonic() - self._last[step] >= SECONDS_BETWEEN_LINES:
            self._last[step] = time.monotonic()
            self._print(f"{step}: {message['done']:,} of {message['total']:,} {message['unit']}")
        elif kind == "note":
            self._print(f"{step}: {message['message']}")
        elif kind == "wait":
            self._print(f"{step}: {_waiting(message)}")
        elif kind in STATE_STYLES:
            self._console.print(_state_line(step, message), soft_wrap=True)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def open_display(console: Console) -> BarDisplay | LineDisplay:
    """Bars on a terminal, lines elsewhere."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


def _state_line(step: str, message: Mapping[str, Any]) -> str:
    state = message["kind"]
    seconds = f" in {message['result'].seconds:.1f} s" if state == "ran" else ""
    return f"{escape(step)}: [{STATE_STYLES[state]}]{state}[/]{seconds}"


def _waiting(message: Mapping[str, Any]) -> str:
    return f"waiting for the same step at {message['holder']}"


def steps_table(steps: Mapping[str, Any], store: str) -> Table:
    """step, cached or ran, time, tokens, artifact relative to the store."""
    table = Table("step", "state", title="Steps", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("time", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("artifact", overflow="fold")
    for label, result in steps.items():
        tokens = result.summary.get("tokens")
        shown = f"{tokens:,}" if isinstance(tokens, int) else ""
        time_shown = f"{result.seconds:.1f} s" if result.state == "ran" else "–"
        artifact = escape(result.ref.uri.removeprefix(f"{store}/"))
        table.add_row(
            escape(label), Text(result.state, style=STATE_STYLES[result.state]), time_shown, shown, artifact
        )
    return table


def metrics_table(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """A row per metric, a column per model, standard errors beside the values."""
    lines = metric_columns(metrics.values())
    table = Table("", "metric", title="Metrics", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for model in metrics:
        table.add_column(model, justify="right")
    rows = zip(*(metric_cells(tasks, lines) for tasks in metrics.values()), strict=True)
    last = None
    for (task, name), cells in zip(lines, rows, strict=True):
        table.add_row("" if task == last else escape(task), escape(name), *cells)
        last = task
    return table


def metric_columns(models: Iterable[Mapping[str, Mapping[str, float]]]) -> list[tuple[str, str]]:
    """(task, metric) of every value worth showing."""
    return sorted(
        {
            (task, name)
            for tasks in models
            for task, values in tasks.items()
            for name in values
            if is_shown(name, values)
        }
    )


def headline_columns(models: Iterable[Mapping[str, Mapping[str, float]]]) -> list[tuple[str, str]]:
    """`metric_columns` for where there is little room."""
    return [column for column in metric_columns(models) if is_headline(*column)]


def metric_cells(tasks: Mapping[str, Mapping[str, float]], columns: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One model's values with their standard errors, empty where it lacks the metric."""
    for task, name in columns:
        values = tasks.get(task, {})
        error = values.get(f"{name}_stderr")
        value = f"{values[name]:.3f}" if name in values else ""
        yield value if error is None else f"{value} ± {error:.3f}"


def print_warnings(warnings: Sequence[str]) -> None:
    """One line for each, on standard error."""
    console = Console(stderr=True)
    for warning in warnings:
        console.print(f"[bold yellow]warning:[/] {escape(warning)}", soft_wrap=True, highlight=False)


def noise_line(noise: Mapping[str, float | None]) -> str:
    """What became of the planted noise, where it is known; a share of nothing is shown as a dash."""

    def share(name: str) -> str:
        value = noise[name]
        return "–" if value is None else f"{value:.1%}"

    auc = noise["auc"]
    return (
        f"Planted noise: {share('called_negative')} of {noise['tokens']:,.0f} noise tokens called negative "
        f"(chance: {share('chance')}); {share('precision')} of the negatives are noise; "
        f"area under the ROC of influence as noise detector {'–' if auc is None else f'{auc:.3f}'}"
    )
