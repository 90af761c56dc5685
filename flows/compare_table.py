"""The tables at the end of a comparison: metrics, and differences to the model that all are compared with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from forgetting_core.comparison.paired import CONFIDENCE


def means_table(comparison: Mapping[str, Any]) -> Table:
    """A row per metric, a column per model: mean over seeds ± standard error over items and seeds."""
    seeds = ", ".join(map(str, comparison["seeds"]))
    return _table(f"Mean over seeds {seeds}", comparison["lines"], comparison["models"], "models", _mean)


def _mean(cell: Mapping[str, Any]) -> str:
    error = "" if cell["stderr"] is None else f" ± {cell['stderr']:.3f}"
    return f"{cell['mean']:.3f}{error}"


def differences_table(comparison: Mapping[str, Any]) -> Table:
    """A row per metric, a column per model: difference, below it the interval; bold where that leaves out 0."""
    against = comparison["against"]
    title = f"Difference to {against} and its {CONFIDENCE:.0%} interval, paired by item and seed"
    models = [model for model in comparison["models"] if model != against]
    lines = [line for line in comparison["lines"] if line["differences"]]
    return _table(title, lines, models, "differences", _difference)


def _difference(found: Mapping[str, Any]) -> str:
    mean = f"{found['mean']:+.3f}"
    shown = f"[bold]{mean}[/]" if found["sign"] else mean
    return shown if found["low"] is None else f"{shown}\n[dim]{found['low']:+.3f} … {found['high']:+.3f}[/]"


def _table(
    title: str,
    lines: Sequence[Mapping[str, Any]],
    models: Sequence[str],
    part: str,
    cell: Callable[[Mapping[str, Any]], str],
) -> Table:
    """`part` of each line holds what is shown of a model, which may be missing."""
    table = Table("", "metric", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for model in models:
        table.add_column(model, justify="right")
    last = None
    for line in lines:
        cells = [cell(line[part][model]) if model in line[part] else "" for model in models]
        table.add_row("" if line["task"] == last else escape(line["task"]), escape(line["metric"]), *cells)
        last = line["task"]
    return table
