"""The team's limit on GPU work: a step that computes on the device holds a slot of it while it computes.

The limit is a global concurrency limit of the Prefect server. A step that is in the store already never asks for a
slot, so a run in which all is cached does not wait for a busy GPU.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.sync import concurrency

from infra.launch import StoppedError
from tasks.context import RunContext
from tasks.spec import StepCall

ATTEMPT_SECONDS = 5.0
"""How long a stopped run may go on waiting."""
LEASE_SECONDS = 90.0
"""After which the slot of a run that was killed is free again; renewed while the run lives."""


def _is_news(record: logging.LogRecord) -> bool:
    """Prefect calls every attempt that found no free slot an error, which here is only waiting."""
    message = record.getMessage()
    return not ("ConcurrencySlotAcquisition" in message and "TimeoutError" in message)


logging.getLogger("prefect._internal.concurrency").addFilter(_is_news)


@contextmanager
def gpu_slot(context: RunContext, call: StepCall) -> Iterator[None]:
    """A slot of the limit `context.gpu_slot`; nothing for a step that leaves the device alone, or without a limit.

    Raises `StoppedError` when the run is asked to stop while it waits, and Prefect's own
    `ConcurrencySlotAcquisitionError` when the server has no such limit (`python -m infra.setup` creates it).
    """
    if context.gpu_slot is None or not call.spec.on_device or context.execution.device == "cpu":
        yield
        return
    with ExitStack() as held:
        told = False
        while not _take(context.gpu_slot, held):
            if not told:
                context.listener(call.label, {"kind": "note", "message": f"waiting for {context.gpu_slot}"})
                told = True
            if context.launcher.stopping.is_set():
                raise StoppedError("not started: the run was asked to stop")
        yield


def _take(limit: str, held: ExitStack) -> bool:
    slot = concurrency(
        limit,
        strict=True,
        timeout_seconds=ATTEMPT_SECONDS,
        lease_duration=LEASE_SECONDS,
        # a server that is away for a while must not end a training
        raise_on_lease_renewal_failure=False,
    )
    try:
        held.enter_context(slot)
    except TimeoutError:
        return False
    return True
