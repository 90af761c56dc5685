"""The benchmark `input`: every case, whether the message says what it must, and what that took.

The first rows count; then there is a row for each case with its message. Some are met once more by the command
line itself, in a process of its own with its servers, to see its exit status and that nothing else is printed.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.input_faults.case import Case
from benchmarks.input_faults.command import run_command
from benchmarks.input_faults.meeting import lost, meet
from benchmarks.input_faults.stores import CASES as STORES
from benchmarks.input_faults.stores import Server, meet_store
from benchmarks.input_faults.worker import Met, Worker
from benchmarks.rows import Row, at_most

GROUPS = ("recipes", "lines", "row_fields", "parquet", "models", "tasks")
MOST_SECONDS = 60.0
MOST_BYTES = 2 * 2**30
LONGEST_NOTE = 500
EVERY = 16
"""Of the cases of a group that the command line meets, too; with `quick` the first only."""


def cases(group: str) -> tuple[Case, ...]:
    """Of one group."""
    found: tuple[Case, ...] = import_module(f"benchmarks.input_faults.{group}").CASES
    return found


def meet_named(group: str, name: str, folder: Path) -> str | None:
    """`meet`, of a case that is known by its name: most cannot be sent to another process."""
    return meet(next(case for case in cases(group) if case.name == name), folder)


def measure(quick: bool) -> list[Row]:
    """The counts, then the cases; those that are slow for their size only without `quick`."""
    with tempfile.TemporaryDirectory() as folder:
        judged = [*_meet_all(quick), *_meet_stores(Path(folder))]
    commanded = [_commanded(case) for group in GROUPS for case in cases(group)[:: 1000 if quick else EVERY]]
    rows = [row for row, _ in judged]
    met = [met for _, met in judged]
    return [
        _count("cases told what is wrong, where, what is expected and what to do", rows),
        _count("cases told so by the command line, with exit status 2 and nothing else", commanded),
        at_most("slowest case", max(case.seconds for case in met), "s", MOST_SECONDS),
        at_most("memory of a case at most", max(case.bytes for case in met) / 2**20, "MiB", MOST_BYTES / 2**20),
        *rows,
        *commanded,
    ]


def _count(what: str, rows: list[Row]) -> Row:
    right = sum(row.holds is True for row in rows)
    return Row(what, right, "cases", f"all {len(rows)}", right == len(rows), f"{len(rows) - right} lost")


def _meet_all(quick: bool) -> Iterator[tuple[Row, Met]]:
    with Worker() as worker:
        for group in GROUPS:
            for case in cases(group):
                if not (quick and case.slow):
                    met = worker.meet(partial(meet_named, group, case.name))
                    yield _row(f"{group}: {case.name}", case.says, met), met


def _meet_stores(folder: Path) -> Iterator[tuple[Row, Met]]:
    server = Server(folder)
    server.start()
    try:
        with Worker() as worker:
            for case in STORES:
                met = worker.meet(partial(meet_store, case, server.environment()))
                yield _row(f"stores: {case.name}", case.says, met), met
    finally:
        server.stop()


def _row(what: str, says: tuple[str, ...], met: Met) -> Row:
    wrong = met.raised or lost(says, met.message)
    note = (f"LOST: {wrong}" if wrong else met.message or "").replace("\n", " ")
    return Row(what, met.seconds, "s", "is told", not wrong, note[:LONGEST_NOTE])


def _commanded(case: Case) -> Row:
    wrong, seconds = run_command(case)
    return Row(f"command line: {case.name}", seconds, "s", "exit status 2", not wrong, wrong or "")
