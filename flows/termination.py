"""The end of a flow run from outside: it is cancelled, its machine is wanted back, or its worker has died."""

import signal

from prefect.runtime import deployment

from infra.launch import die_with_parent


def is_deployed() -> bool:
    """Whether this flow run was started on a pool, and not by a command in somebody's terminal."""
    return deployment.id is not None


def end_with_worker() -> None:
    """Have a deployed run asked to end when its worker has died: nobody could cancel it any more.

    For a process pool; elsewhere the container ends.
    """
    if is_deployed():
        die_with_parent(signal.SIGTERM)


def ignore_further_signals() -> None:
    """Let what was begun on the first SIGTERM come to its end; Prefect kills what takes longer than 30 s.

    There may be several: from whoever stops the run, from its worker, and for the death of the worker. For the main
    thread.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
