"""The command: `python -m benchmarks NAME` measures, prints a table, and exits with 1 when a row does not hold.

A benchmark is a module with `measure(quick) -> list[Row]`, imported when it is asked for. `all` runs each one of
the table of speed and size in a process of its own, so that none inherits another's memory or threads.
"""

import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.rows import Row, failing, terminal_table

TABLE = {
    "scoring": "benchmarks.scoring",
    "training": "benchmarks.training",
    "partition": "benchmarks.partition",
    "store": "benchmarks.store",
    "orchestration": "benchmarks.orchestration",
    "tokenising": "benchmarks.tokenising",
    "growth": "benchmarks.growth",
}
"""Speed and size: what `all` runs."""
BENCHMARKS = {
    **TABLE,
    "faults": "benchmarks.faults",
    "input": "benchmarks.input_faults.measure",
    "fuzz": "benchmarks.fuzz.measure",
    "security": "benchmarks.security",
    "kills": "benchmarks.kills",
    "load": "benchmarks.load",
}
"""{name: module}"""
ALL = "all"
RESULTS = Path(__file__).resolve().parent / "results"
"""What is published."""
QUICK_RESULTS = Path(".forgetting/benchmarks")


def benchmark(
    name: Annotated[str, typer.Argument(help=f"{ALL}, or one of {', '.join(BENCHMARKS)}.")],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes: the whole table in minutes.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for NAME.md and NAME.json.",
            show_default=f"benchmarks/results; with --quick {QUICK_RESULTS}",
        ),
    ] = None,
) -> None:
    """Measure, print a row for every target, and write the table and a JSON document."""
    folder = out or (QUICK_RESULTS if quick else RESULTS)
    if name == ALL:
        rows = _measure_all(quick, folder)
    elif name in BENCHMARKS:
        rows = _measure(name, quick, folder)
    else:
        raise typer.BadParameter(f"{name!r}; expected {ALL}, {', '.join(BENCHMARKS)}", param_hint="NAME")
    Console().print(terminal_table(name, rows))
    Console().print(f"Written to {folder}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failing(rows) else 0)


def _measure(name: str, quick: bool, folder: Path) -> list[Row]:
    started = time.monotonic()
    rows: list[Row] = import_module(BENCHMARKS[name]).measure(quick)
    from benchmarks.files import write_results

    write_results(name, rows, folder, shlex.join(_command(name, quick)), time.monotonic() - started)
    return rows


def _measure_all(quick: bool, folder: Path) -> list[Row]:
    """The rows of all in the table; one that ends without its document is a row that does not hold."""
    from benchmarks.files import read_rows

    rows = []
    for name in TABLE:
        document = folder / f"{name}.json"
        document.unlink(missing_ok=True)
        command = [sys.executable, *_command(name, quick)[1:], "--out", str(folder)]
        status = subprocess.run(command, check=False).returncode
        if document.exists():
            rows += read_rows(document)
        else:
            rows.append(Row(name, status, "exit status", "ends with a table", False, "it says why above"))
    return rows


def _command(name: str, quick: bool) -> list[str]:
    return ["python", "-m", "benchmarks", name, *(["--quick"] if quick else [])]


if __name__ == "__main__":
    typer.run(benchmark)
