"""How a running step tells the outside what it is doing, and hears that it should stop."""

import time
from pathlib import Path

from forgetting_core.errors import Interrupted


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


class Progress:
    """The silent listener, and the base of the others.

    A step calls `advance` often (once a batch); a subclass decides how often to show it.
    """

    def __init__(self) -> None:
        self.stop_requested = False

    def advance(self, done: float, total: float, unit: str) -> None:
        """`done` of `total` units (tokens, rows, steps) are finished. Raises `Interrupted` when asked to stop."""
        if self.stop_requested:
            raise Interrupted

    def log(self, step: int, metrics: dict[str, float], milliseconds: int) -> None:
        """Values of the curves (`train/loss_positive`, …) after optimizer step `step`, counted from 1 (0: before).

        `milliseconds` (as of `now`) is when the step was done. A resumed training logs its earlier steps again.
        """

    def saved(self, step: int, folder: Path) -> None:
        """`folder` holds a training checkpoint after `step` optimizer steps, until the next one replaces it."""

    def note(self, message: str) -> None:
        """Something the user should read: rows without a response token, a resumed run."""
