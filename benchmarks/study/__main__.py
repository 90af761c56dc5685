"""The command: run what is missing of the grid, then write the table of what there is."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.study.grid import SEEDS, full_grid, quick_grid
from benchmarks.study.run import run_grid

RESULTS = Path(__file__).resolve().parent.parent / "results" / "study"


def study(
    out: Annotated[Path, typer.Option(help="Folder for study.md, study.json and study.svg.")] = RESULTS,
    state: Annotated[Path, typer.Option(help="Folder for store, servers and records.")] = Path(".forgetting/study"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time; one core is busy with each.")] = 2,
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = ",".join(map(str, SEEDS)),
    quick: Annotated[bool, typer.Option(help="Two runs of a tiny model, to see the machinery work.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Run nothing: write the table of what is done.")] = False,
) -> None:
    """Run the controlled study and write its table. Started again, it goes on where it was stopped."""
    runs = quick_grid() if quick else full_grid([int(seed) for seed in seeds.split(",")])
    complete = table or run_grid(runs, state.resolve(), jobs)

    from benchmarks.study.results import write_results

    options = [*(["--seeds", seeds] if not quick else ["--quick"])]
    written = write_results(runs, state.resolve(), out, shlex.join(["python", "-m", "benchmarks.study", *options]))
    print(f"table: {written}" if written else "nothing is done yet, so there is no table")
    sys.exit(0 if complete and written else 1)


if __name__ == "__main__":
    typer.run(study)
