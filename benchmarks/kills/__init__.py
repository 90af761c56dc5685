"""`python -m benchmarks kills`: whatever of a run or of its servers is killed at any moment, nothing is lost.

A trial (`trial`) kills one process of a real run of `nano` on the team stack, at a random moment or in the middle
of a write to the store. Then the run goes on, or is done again, and everything is as if nothing had happened: every
artifact has the digest that it has undisturbed, what is visible is whole, no lease, slot or checkpoint is left, no
process is left, and MLflow and Prefect know of no run that goes on. `python -m benchmarks.kills SEED...` tries the
trials of some seeds again.

All of it takes hours. What became of each trial is kept in `results/kills.jsonl`, from where a benchmark that was
ended goes on the next time; without that file it begins anew.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.kills import kept
from benchmarks.kills.attempt import Result, attempt
from benchmarks.kills.settling import settle
from benchmarks.kills.trial import PAIRS, draw
from benchmarks.kills.world import open_world
from benchmarks.rows import Row, at_least
from infra.launch import die_with_parent

TRIALS, QUICK_TRIALS = 210, 7
"""Some come too late for their run."""
KILLS, QUICK_KILLS = 200, 6
"""To be met."""
STACKS = 3
"""Side by side: most of a trial is waiting, such as for a heartbeat that does not come."""
SETTLED_TOGETHER = 4
"""Trials after which what became of them is known and kept."""
ENDING = (signal.SIGINT, signal.SIGTERM)
SHOWN = 3
"""Losses that a row's note names."""
KEPT = Path(__file__).resolve().parents[1] / "results" / "kills.jsonl"
"""What became of the trials of the whole benchmark."""


def measure(quick: bool) -> list[Row]:
    """A row for each victim and signal, and how many were killed."""
    if not quick:
        return rows(*try_all(TRIALS, KEPT), KILLS)
    with tempfile.TemporaryDirectory() as folder:
        return rows(*try_all(QUICK_TRIALS, Path(folder) / KEPT.name), QUICK_KILLS)


def try_all(trials: int, path: Path) -> tuple[list[Result], list[str]]:
    """What became of so many trials, those in the file included, and what was left that belongs to none of them."""
    done = {result.trial.seed for result in kept.read(path)[0]}
    left = [seed for seed in range(trials) if seed not in done]
    shares = [share for first in range(STACKS) if (share := left[first::STACKS])]
    with ProcessPoolExecutor(STACKS, multiprocessing.get_context("spawn")) as stacks:
        list(stacks.map(partial(_share, path=path), shares))
    return kept.read(path)


def _share(seeds: Sequence[int], path: Path) -> None:
    """`kill` in a process of its own, which ends with the benchmark, however that comes about."""
    die_with_parent(by=signal.SIGTERM)
    try:
        kill(seeds, path)
    except KeyboardInterrupt:
        os._exit(1)  # else it would wait for a next share


def kill(seeds: Sequence[int], path: Path) -> None:
    """Do the trials of these seeds on one stack; what became of them is added to the file.

    For the main thread: asked to end, by whichever signal, it takes down first what it has started.
    """
    for number in ENDING:
        signal.signal(number, _end)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, open_world(Path(folder)) as world:
        for first in range(0, len(seeds), SETTLED_TOGETHER):
            results = []
            for seed in seeds[first : first + SETTLED_TOGETHER]:
                result = attempt(draw(seed), world)
                print(f"{result.trial}: {result.outcome} ({result.said})", file=sys.stderr)
                results.append(result)
            kept.keep(path, *settle(results, world))


def _end(*_: object) -> None:
    for number in ENDING:  # the stack is to be taken down once, undisturbed
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def rows(results: Sequence[Result], strays: Sequence[str], kills: int) -> list[Row]:
    """The table."""
    found = []
    for victim, by in PAIRS:
        of_pair = [item for item in results if (item.trial.victim, item.trial.signal) == (victim, by)]
        if of_pair:
            found.append(_row(f"{victim}, {by.name}", of_pair))
    found.append(Row("left at the end", len(strays), "things", "0", not strays, "; ".join(strays[:SHOWN])))
    met = sum(result.outcome != "not met" for result in results)
    hours = sum(result.ended - result.began for result in results) / 3600
    codes = ", ".join(sorted({result.code for result in results}))
    return [*found, at_least("killed", met, "times", kills, f"{hours:.1f} hours of trials, by code {codes}")]


def _row(what: str, results: Sequence[Result]) -> Row:
    counts = Counter(result.outcome for result in results)
    tried = len(results) - counts["not met"]
    seeds = ", ".join(str(result.trial.seed) for result in results if result.outcome != "not met")
    notes = [
        f"tried {tried}: {counts['went on']} went on, {counts['again']} completed in the next run,"
        f" {counts['lost']} lost",
        f"seeds {seeds}",
        *[f"{item.trial}: {item.said[:300]}" for item in results if item.outcome == "lost"][:SHOWN],
    ]
    return Row(what, counts["lost"], "lost", "0", not counts["lost"], "; ".join(notes))
