"""Runs the grid through the product: the flow `forgetting`, once for each of its runs, in processes side by side.

What runs share is computed once, by the store's caching. Whatever is done is kept: a study that was stopped goes on
where it was when it is started again.

Prefect reads its settings when it is imported, so it, and what imports it, is imported in the processes only.
"""

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.grid import RECIPE, Run
from infra.settings import STATE_DIR_VARIABLE, Settings

STORE = "store"


def run_grid(runs: Sequence[Run], state: Path, jobs: int) -> bool:
    """Every run that has no record by this recipe and these steps; whether all have now.

    Ctrl-C lets each process save and end.
    """
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_run_share, args=(runs[job::jobs], state, job)) for job in range(jobs)]
    for child in children:
        child.start()
    for child in children:
        while child.is_alive():
            try:
                child.join()
            except KeyboardInterrupt:  # the children have heard it too
                continue
    return all(child.exitcode == 0 for child in children)


def _run_share(runs: Sequence[Run], state: Path, job: int) -> None:
    """The runs of one process, which has servers and scratch space of its own; the store is common."""
    # a second thread costs more than it brings where models are this small, and the other process has a use for it
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ[STATE_DIR_VARIABLE] = str(state / f"job-{job}")
    Settings.from_environment().prepare_environment()
    from flows.interrupt import Interrupt
    from tasks.context import LISTENER

    Interrupt().listen()
    LISTENER.set(lambda step, message: None)
    failed = False
    for number, run in enumerate(runs, start=1):
        started = time.monotonic()
        done = _run_one(run, state)
        failed |= done is None
        seconds = time.monotonic() - started
        print(f"job {job}: {number} of {len(runs)}: {run.name}: {done or 'FAILED'} ({seconds:.0f} s)", flush=True)
        if done == INTERRUPTED:
            raise SystemExit(1)
    raise SystemExit(int(failed))


INTERRUPTED = "interrupted"


def _run_one(run: Run, state: Path) -> str | None:
    """What came out, in a line; None when the run failed, which takes no other run down."""
    from benchmarks.study.records import is_current, read_record, write_record
    from flows.failure import message_of
    from flows.group import GroupOutcome, run_members

    record = read_record(run, state)
    if record is not None and is_current(record, run):
        return "done before"
    outcome = GroupOutcome("cell", "", [run.name])
    run_members(outcome, RECIPE, {run.name: run.overrides}, str(state / STORE))
    for failure in outcome.failures.values():
        print(f"error: {run.name}: {message_of(failure)}", flush=True)
    if outcome.interrupted:
        return INTERRUPTED
    if run.name not in outcome.runs:
        return None
    return _line(write_record(run, outcome.runs[run.name], state))


def _line(record: dict[str, Any]) -> str:
    return ", ".join(f"{arm} {sum(of['items']) / len(of['items']):.2f}" for arm, of in record["arms"].items())
