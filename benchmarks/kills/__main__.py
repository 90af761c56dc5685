"""`python -m benchmarks.kills SEED...`: the trials of some seeds, tried again alone."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.kills import KEPT, kept, kill


def again(seeds: Annotated[list[int], typer.Argument(metavar="SEED...", min=0)]) -> None:
    """Kill as these seeds say; exit status 1 when something was lost."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KEPT.name
        kill(seeds, path)
        results, strays = kept.read(path)
    for line in strays:
        print(f"left at the end: {line}", file=sys.stderr)
    lost = [result for result in results if result.outcome == "lost"]
    for result in lost:
        print(f"lost: {result.trial}: {result.said}")
    raise typer.Exit(1 if lost or strays else 0)


if __name__ == "__main__":
    typer.run(again)
