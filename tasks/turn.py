"""Whose turn it is to compute a step: one producer at a time, and whoever waits adopts what it commits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.commits import Commit
from infra.launch import StoppedError
from infra.lease import Candidate
from tasks.context import RunContext

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


@contextmanager
def turn(
    context: RunContext, label: str, candidate: Candidate, finished: Callable[[], Commit | None]
) -> Iterator[Commit | None]:
    """A `with` block in which the step is ours to compute (None), or the commit that makes that needless.

    `finished` looks that commit up. While another producer holds the lease this waits and tells the listener who it
    is; one that is lost is taken over, and its run is closed in MLflow.

    Raises `StoreError`, and `StoppedError` when the run is asked to stop.
    """
    told, pause = "", FIRST_PAUSE_SECONDS
    while (lease := candidate.attempt()) is None:
        commit = finished()
        if commit is not None:
            yield commit
            return
        holder = str(candidate.holder or "another process")
        if holder != told:
            context.listener(label, {"kind": "wait", "holder": holder})
            told = holder
        if context.launcher.stopping.wait(pause):
            raise StoppedError("not started: the run was asked to stop")
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    with lease:
        lost = candidate.lost
        # a lease of this very run is left over where an earlier attempt at the step could not release it
        if lost is not None and lost.mlflow_run_id not in (None, context.lineage.run_id):
            why = f"it gave no sign of life any more; the run {context.flow_run_id} took over {label}"
            context.lineage.close_lost(lost.mlflow_run_id, why, lost.heartbeat)
        yield finished()  # the last holder may have committed just before
