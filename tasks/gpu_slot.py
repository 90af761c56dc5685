"""The team's limit on GPU work: a step that computes on the device holds a slot of it while it computes.

The limit is a global concurrency limit of the Prefect server. A step that is in the store already never asks for a
slot, so a run in which all is cached does not wait for a busy GPU.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from httpx import HTTPError, TransportError
from prefect.concurrency.sync import concurrency

from infra.launch import StoppedError
from tasks.context import RunContext
from tasks.spec import StepCall

ATTEMPT_SECONDS = 5.0
"""How long a stopped run may go on waiting."""
PAUSE_SECONDS = 0.2
LEASE_SECONDS = 90.0
"""After which the slot of a run that was killed is free again; renewed while the run lives."""

logger = logging.getLogger(__name__)


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
    limit, held = context.gpu_slot, ExitStack()
    told = False
    while not _take(limit, held):
        if not told:
            context.listener(call.label, {"kind": "note", "message": f"waiting for {limit}"})
            told = True
        if context.launcher.stopping.wait(PAUSE_SECONDS):
            raise StoppedError("not started: the run was asked to stop")
    try:
        yield
    finally:
        try:
            held.close()
        except HTTPError as error:  # what was computed must not be lost by that
            logger.warning("%s: the slot of %s is free in %g s: %s", call.label, limit, LEASE_SECONDS, error)


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
    except (TimeoutError, TransportError):  # no slot, or no server, for now
        return False
    return True
