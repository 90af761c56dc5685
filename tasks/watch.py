"""The parent's view of one running step: messages go to whoever watches, curves to the lineage in batches."""

import time
from datetime import UTC, datetime
from typing import Any

from infra.lineage import Point
from tasks.context import RunContext

SECONDS_BETWEEN_BATCHES = 2.0


class Watch:
    """Hears the messages of a step's process, in the thread that waits for it."""

    def __init__(self, context: RunContext, label: str, run_id: str | None) -> None:
        self.started = datetime.now(UTC)
        """When computing began; waiting for a slot does not count."""
        self._context = context
        self._label = label
        self._run_id = run_id
        self._points: list[Point] = []
        self._last_sent = time.monotonic()

    def __call__(self, message: dict[str, Any]) -> None:
        """One message of `infra.launch.Launcher.run`."""
        if message["kind"] == "start":
            self.started = datetime.now(UTC)
        if message["kind"] == "log":
            self._points.append(Point(message["step"], message["metrics"], int(time.time() * 1000)))
            if time.monotonic() - self._last_sent >= SECONDS_BETWEEN_BATCHES:
                self.send_curves()
        self._context.listener(self._label, message)

    def send_curves(self) -> None:
        """Send what has gathered."""
        self._context.lineage.log_curves(self._run_id, self._points)
        self._points = []
        self._last_sent = time.monotonic()
