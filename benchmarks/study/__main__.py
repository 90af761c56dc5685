"""The command: run what is missing of the grid, then write the table of what there is."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.study.grid import SEEDS, full_grid, quick_grid
from benchmarks.study.run import run_grid

RESULTS = Path(__file__).resolve().parent.parent / "results" / "study"
"""What is published."""
QUICK_RESULTS = "quick"


def study(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for study.md, study.json and study.svg.",
            show_default=f"benchmarks/results/study; with --quick, {QUICK_RESULTS} inside --state",
        ),
    ] = None,
    state: Annotated[Path, typer.Option(help="Folder for store, servers and records.")] = Path(".forgetting/study"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time; one core is busy with each.")] = 2,
    seeds: Annotated[str, typer.Option(help="Training seeds, separated by commas.")] = ",".join(map(str, SEEDS)),
    quick: Annotated[bool, typer.Option(help="Two runs of a tiny model, to see the machinery work.")] = False,
    table: Annotated[bool, typer.Option("--table", help="Run nothing: write the table of what is done.")] = False,
) -> None:
    """Run the controlled study and write its table. Started again, it goes on where it was stopped."""
    runs = quick_grid() if quick else full_grid(_seeds(seeds))
    complete = table or run_grid(runs, state.resolve(), jobs)

    from benchmarks.study.results import write_results

    options = ["--quick"] if quick else ["--seeds", seeds]
    command = shlex.join(["python", "-m", "benchmarks.study", *options])
    written = write_results(runs, state.resolve(), out or (state / QUICK_RESULTS if quick else RESULTS), command)
    print(f"table: {written}" if written else "nothing is done yet, so there is no table")
    sys.exit(0 if complete and written else 1)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(
            f"expected whole numbers from 0 on, separated by commas, such as 1,2,3; found {text!r}",
            param_hint="--seeds",
        )
    seeds = [int(part) for part in parts]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise typer.BadParameter(
            f"expected each seed once; {', '.join(map(str, twice))} comes more often", param_hint="--seeds"
        )
    return seeds


if __name__ == "__main__":
    typer.run(study)
