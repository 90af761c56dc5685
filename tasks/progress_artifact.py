"""A running step's progress in Prefect's UI: one artifact per task run, updated about once a second.

A thread of its own talks to Prefect, and what comes while it does is left out, so that a server that is slow or
away never holds a step up.
"""

import contextvars
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

SECONDS_BETWEEN_UPDATES = 1.0
logger = logging.getLogger(__name__)


class StepProgress:
    """Hears a step's messages of the kind `advance`, in the thread of its task."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._inside = TaskRunContext.get() is not None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="progress")
        self._artifact: Future[UUID] | None = None
        self._due = 0.0
        self._last: dict[str, Any] | None = None

    def close(self) -> None:
        """The step is over. Its last words are still delivered if they can be, but nobody waits for that."""
        if self._last is not None:
            self._due = 0.0
            self(self._last)
        self._pool.shutdown(wait=False)

    def __call__(self, message: dict[str, Any]) -> None:
        """`done` of `total` are finished."""
        now = time.monotonic()
        self._last = message
        if not self._inside or now < self._due or (self._artifact is not None and not self._artifact.done()):
            return
        if self._artifact is not None and (error := self._artifact.exception()) is not None:
            logger.info("%s: no progress in Prefect's UI: %s", self._label, error)
            self._inside = False
            return
        self._due = now + SECONDS_BETWEEN_UPDATES
        percent = 100 * message["done"] / max(message["total"], 1)
        text = f"{self._label}: {message['done']:,.0f} of {message['total']:,.0f} {message['unit']}"
        known = self._artifact.result() if self._artifact is not None else None
        self._artifact = self._pool.submit(contextvars.copy_context().run, _show, known, percent, text)


def _show(known: UUID | None, percent: float, text: str) -> UUID:
    if known is None:
        return cast(UUID, create_progress_artifact(percent, description=text))
    return cast(UUID, update_progress_artifact(known, percent, text))
