"""Many flow runs at once on one stack: what is there already, and sweeps that want the same things."""

import time
from collections.abc import Iterator
from pathlib import Path

from prefect.client.schemas.objects import FlowRun

from benchmarks.rows import Row, at_most, reported
from infra.commits import DATA
from infra.inventory import artifact_folder, read_inventory
from infra.urls import open_objects
from tests.stack import Running, most_at_once, running_stack

AT_ONCE = 8
CACHED_RUNS = {True: 12, False: 50}
SWEEPS = {True: 3, False: 10}
RHOS = ("0.3", "0.4", "0.5", "0.6", "0.7")
PER_SWEEP = 2
"""Values of ρ; neighbours among the sweeps share them."""
RECIPE = "nano"
SMALL = ("baselines=[]", "evaluate.tasks=[]")
END_SECONDS = 3600.0


def measure_crowd(folder: Path, quick: bool) -> Iterator[Row]:
    """The rows; the stack lives below `folder`."""
    with running_stack(folder / "stack", gpu_runs=AT_ONCE) as stack:
        first = stack.finished(stack.start("forgetting/forgetting", recipe=RECIPE, overrides=list(SMALL)))
        yield _none("the run that computes everything", [first])
        yield from _cached(stack, CACHED_RUNS[quick])
        yield from _sweeps(stack, SWEEPS[quick])


def _cached(stack: Running, count: int) -> Iterator[Row]:
    """So many runs of what is in the store."""
    before, started = len(_made(stack)), time.monotonic()
    asked = [stack.start("forgetting/forgetting", recipe=RECIPE, overrides=list(SMALL)) for _ in range(count)]
    runs = [stack.finished(run, END_SECONDS) for run in asked]
    seconds = time.monotonic() - started
    yield _none(f"{count} cached runs queued", runs)
    yield at_most("of these at the same time", most_at_once(runs), "runs", AT_ONCE)
    wrong = [state for run in runs for state in stack.steps(run).values() if state != "Cached"]
    made = len(_made(stack)) - before
    yield Row("steps of these that were computed", len(wrong) + made, "steps", "0", not wrong and not made)
    yield reported("all of these", seconds, "s", f"{seconds / count:.1f} s for each")


def _sweeps(stack: Running, count: int) -> Iterator[Row]:
    """So many sweeps at the same time, none of whose steps is in the store."""
    started = time.monotonic()
    asked = []
    for number in range(count):
        rhos = [RHOS[(number + offset) % len(RHOS)] for offset in range(PER_SWEEP)]
        overrides = [*SMALL, "split.seed=7"]
        asked.append(stack.start("sweep/sweep", recipe=RECIPE, rhos=rhos, overrides=overrides))
    runs = [stack.finished(run, END_SECONDS) for run in asked]
    seconds = time.monotonic() - started
    yield _none(f"{count} sweeps at the same time, {PER_SWEEP} ρ each", runs)
    # an attempt leaves its files, whether or not another one committed first
    attempts = _made(stack)
    inventory = read_inventory(open_objects(stack.environment["FORGETTING_STORE"]))
    twice = sorted(attempts - inventory.by_artifact.keys())
    note = f"{len(attempts)} artifacts, {len(inventory.commits)} commits"
    yield Row("steps computed twice", len(twice), "steps", "0", not twice, "; ".join([note, *twice[:3]]))
    yield reported("all of these sweeps", seconds, "s", f"{seconds / count:.1f} s for each")


def _made(stack: Running) -> set[str]:
    """The folders of all artifacts, committed or not."""
    objects = open_objects(stack.environment["FORGETTING_STORE"])
    return {artifact_folder(stored.key) for stored in objects.find(DATA.rstrip("/"))}


def _none(what: str, runs: list[FlowRun]) -> Row:
    """A row that holds when no run has failed."""
    failed = [f"{run.name}: {run.state}" for run in runs if not (run.state and run.state.is_completed())]
    return Row(what, len(failed), "failed", "0", not failed, "; ".join(failed[:3]))
