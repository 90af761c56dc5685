"""The tables at the end of a comparison: metrics, and differences to the model that all are compared with."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table


def means_table(comparison: Mapping[str, Any]) -> Table:
    """A row per model, a column per metric: mean over seeds ± standard error over items and seeds."""
    seeds = ", ".join(map(str, comparison["seeds"]))
    table = Table("model", title=f"Mean over seeds {seeds}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for line in comparison["lines"]:
        table.add_column(f"{escape(line['task'])}\n{escape(line['metric'])}", justify="right")
    for model in comparison["models"]:
        table.add_row(model, *(_mean(line["models"].get(model)) for line in comparison["lines"]))
    return table


def _mean(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    error = "" if cell["stderr"] is None else f" ± {cell['stderr']:.3f}"
    return f"{cell['mean']:.3f}{error}"


def differences_table(comparison: Mapping[str, Any]) -> Table:
    """A row per model, a column per metric: difference and its interval; bold where that leaves out 0."""
    title = f"Difference to {comparison['against']}, with its 95 % interval (paired by item and seed)"
    table = Table("model", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    lines = [line for line in comparison["lines"] if line["differences"]]
    for line in lines:
        table.add_column(f"{escape(line['task'])}\n{escape(line['metric'])}", justify="right")
    for model in comparison["models"]:
        if model != comparison["against"]:
            table.add_row(model, *(_difference(line["differences"].get(model)) for line in lines))
    return table


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    sure = found["low"] > 0 or found["high"] < 0
    mean = f"{found['mean']:+.3f}"
    return f"{f'[bold]{mean}[/]' if sure else mean} ({found['low']:+.3f} to {found['high']:+.3f})"
