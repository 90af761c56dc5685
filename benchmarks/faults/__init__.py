"""`python -m benchmarks faults`: a store that fails in every way, and what becomes of what is done to it meanwhile.

A proxy in front of a real S3 server spoils requests (`kinds`), while the store's operations (`trials`) and whole
runs (`runs`) use it. What fails may be said, never hidden: `lost` counts wrong results, misses where there is a
commit, visible commits of damaged artifacts, and errors that say nothing of the store.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.runs import RunResult, run_runs
from benchmarks.faults.trials import Result, run_trials, trials
from benchmarks.rows import Row, at_least, reported
from tests.seaweedfs import SeaweedFS

TRIALS, QUICK_TRIALS = 720, 120
"""Some do not meet their fault: reading uploads nothing."""
FAULTS, QUICK_FAULTS = 500, 60
"""To be met."""
RUNS, QUICK_RUNS = 22, 2
SHOWN = 3
"""Losses that a row's note names."""


def measure(quick: bool) -> list[Row]:
    """A row for each kind of fault, one for whole runs, and how many faults there were."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        server = SeaweedFS(Path(folder) / "server")
        server.start()
        try:
            tried = list(run_trials(trials(QUICK_TRIALS if quick else TRIALS), server))
            whole = list(run_runs(QUICK_RUNS if quick else RUNS, server, Path(folder)))
        finally:
            server.stop()
    rows = [
        _row(kind, [(result, _name(result)) for result in tried if result.trial.kind == kind]) for kind in KINDS
    ]
    rows.append(_row("runs of nano", [(result, f"{result.kind}, seed {result.seed}") for result in whole]))
    everything: list[Result | RunResult] = [*tried, *whole]
    met = [result for result in everything if result.outcome != "not met"]
    rows.append(reported("requests spoiled", sum(result.injected for result in met), "requests"))
    note = f"seeds 0 to {len(tried) - 1} of operations, 0 to {len(whole) - 1} of runs"
    return [*rows, at_least("faults tried", len(met), "faults", QUICK_FAULTS if quick else FAULTS, note)]


def _name(result: Result) -> str:
    return f"{result.trial.operation.__name__}, seed {result.trial.seed}"


def _row(what: str, results: Sequence[tuple[Result | RunResult, str]]) -> Row:
    counts = Counter(result.outcome for result, _ in results)
    tried = len(results) - counts["not met"]
    note = f"tried {tried}: {counts['right']} ended right, {counts['said']} with the cause, {counts['lost']} lost"
    lost = [f"{name}: {result.said[:200]}" for result, name in results if result.outcome == "lost"]
    return Row(what, counts["lost"], "lost", "0", not counts["lost"], "; ".join([note, *_first(lost)]))


def _first(lost: Iterable[str]) -> list[str]:
    return list(lost)[:SHOWN]
