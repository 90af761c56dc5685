"""The plan as a person reads it."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from flows.plan import PlannedStep
from infra.plan import Reason

STYLES = {"cached": "cyan", "run": "green", "maybe": "yellow", "running": "blue", "evicted": "magenta"}
SHOWN_DIGITS = 12


def plan_table(steps: Sequence[PlannedStep]) -> Table:
    """step, state, how long it took last time, why."""
    table = Table("step", "state", title="Plan", title_justify="left")
    table.add_column("last time", justify="right")
    table.add_column("why", overflow="fold")
    for step in steps:
        found = step.assessment
        seconds = "" if found.last_seconds is None else f"{found.last_seconds:.1f} s"
        changed = found.state == "cached" and found.reasons
        why = "code changed, see below" if changed else "\n".join(map(sentence, found.reasons))
        table.add_row(escape(step.label), f"[{STYLES[found.state]}]{found.state}[/]", seconds, escape(why))
    return table


def sentence(reason: Reason) -> str:
    """One reason in one line."""
    if reason.kind == "missing":
        return str(reason.new or f"{reason.field} {reason.old} is gone")
    if reason.kind == "input" and reason.old is None:
        return f"input {reason.field}: {shown(reason.new)}"
    change = f"{shown(reason.old)} → {shown(reason.new)}"
    return f"{reason.field}: {change}" if reason.kind != "input" else f"input {reason.field}: {change}"


def shown(value: object) -> str:
    """A value as it stands in a line; digests are cut."""
    text = str(value)
    return text[:SHOWN_DIGITS] if len(text) == 64 else text
