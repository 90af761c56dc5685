"""`python -m benchmarks kills`: whatever of a run or of its servers is killed at any moment, nothing is lost.

A trial (`trial`) kills one process of a real run of `nano` on the team stack, at a random moment or in the middle
of a write to the store. Then the run goes on, or is done again, and everything is as if nothing had happened: every
artifact has the digest that it has undisturbed, what is visible is whole, no lease, slot or checkpoint is left, no
process is left, and MLflow and Prefect know of no run that goes on. `python -m benchmarks.kills SEED...` tries the
trials of some seeds again.
"""

import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

from benchmarks.kills.attempt import Result, attempt
from benchmarks.kills.settling import settle
from benchmarks.kills.trial import PAIRS, draw
from benchmarks.kills.world import open_world
from benchmarks.rows import Row, at_least

TRIALS, QUICK_TRIALS = 224, 7
"""Some come too late for their run."""
KILLS, QUICK_KILLS = 200, 6
"""To be met."""
STACKS = 3
"""Side by side: most of a trial is waiting, such as for a heartbeat that does not come."""
SHOWN = 3
"""Losses that a row's note names."""


def measure(quick: bool) -> list[Row]:
    """A row for each victim and signal, and how many were killed."""
    trials = QUICK_TRIALS if quick else TRIALS
    shares = [range(first, trials, STACKS) for first in range(STACKS)]
    with ProcessPoolExecutor(STACKS, multiprocessing.get_context("spawn")) as stacks:
        results, strays = zip(*stacks.map(kill, shares), strict=True)
    found = sorted(chain(*results), key=lambda result: result.trial.seed)
    return rows(found, [*chain(*strays)], QUICK_KILLS if quick else KILLS)


def kill(seeds: Iterable[int]) -> tuple[list[Result], list[str]]:
    """What became of the trials of these seeds, and what was left at the end that belongs to none of them."""
    results = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, open_world(Path(folder)) as world:
        for seed in seeds:
            result = attempt(draw(seed), world)
            print(f"{result.trial}: {result.outcome} ({result.said})", file=sys.stderr)
            results.append(result)
        return settle(results, world)


def rows(results: Sequence[Result], strays: Sequence[str], kills: int) -> list[Row]:
    """The table."""
    found = []
    for victim, signal in PAIRS:
        of_pair = [item for item in results if (item.trial.victim, item.trial.signal) == (victim, signal)]
        if of_pair:
            found.append(_row(f"{victim}, {signal.name}", of_pair))
    found.append(Row("left at the end", len(strays), "things", "0", not strays, "; ".join(strays[:SHOWN])))
    met = sum(result.outcome != "not met" for result in results)
    return [*found, at_least("killed", met, "times", kills)]


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
