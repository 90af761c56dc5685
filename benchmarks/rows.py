"""What a benchmark hands back: a row for every target, with what was measured and whether it holds.

Targets are ratios of things timed in the same run wherever they can be, so that a row means the same on another
machine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

Curve = tuple[tuple[float, float], ...]
"""(tokens, nanoseconds per token)"""


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table."""

    what: str
    measured: float
    unit: str
    """Such as `s`, `MB/s`, or `× the plain way` for a ratio."""
    target: str
    """For people; empty when nothing is asked."""
    holds: bool | None
    """None when nothing is asked."""
    note: str = ""
    """What the number is made of, in the units it was measured in."""
    curve: Curve = ()
    """Where growth is what is asked; drawn beside the table."""


def at_least(what: str, measured: float, unit: str, bound: float, note: str = "") -> Row:
    """A row that holds when `measured` reaches `bound`, in `unit`."""
    return Row(what, measured, unit, f"≥ {bound:g}", measured >= bound, note)


def at_most(what: str, measured: float, unit: str, bound: float, note: str = "", curve: Curve = ()) -> Row:
    """A row that holds when `measured` does not exceed `bound`, in `unit`."""
    return Row(what, measured, unit, f"≤ {bound:g}", measured <= bound, note, curve)


def reported(what: str, measured: float, unit: str, note: str = "") -> Row:
    """A row that asks for nothing."""
    return Row(what, measured, unit, "", None, note)


def no_growth(what: str, growth: float, note: str = "") -> Row:
    """A row that holds when something is at most a tenth more: `growth` times what it was."""
    return Row(what, 100 * (growth - 1), "% more", "≤ 10", growth <= 1.1, note)


def failing(rows: Iterable[Row]) -> list[Row]:
    """The rows that do not hold."""
    return [row for row in rows if row.holds is False]


def millions(number: int) -> str:
    """`12.5M` of 12500000."""
    return f"{number / 1e6:g}M"


def verdict(row: Row) -> str:
    """`yes`, `NO`, or nothing where nothing is asked."""
    return {True: "yes", False: "NO", None: ""}[row.holds]


def amount(row: Row) -> str:
    """What was measured, to three digits, with its unit."""
    value = f"{row.measured:.0f}" if abs(row.measured) >= 100 else f"{row.measured:.3g}"
    return f"{value} {row.unit}".rstrip()


def terminal_table(title: str, rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    table = Table(title=title, title_justify="left")
    for name in ("what", "measured", "target", "holds", "note"):
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = map(escape, (row.what, amount(row), row.target, verdict(row), row.note))
        table.add_row(*cells, style="red" if row.holds is False else None)
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = ["| what | measured | target | holds | note |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.what, amount(row), row.target, verdict(row), row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
