"""A process in which cases are met one after the other, so that a hang, a crash or a flood of memory is seen.

It is kept from case to case, since to import everything takes seconds, and replaced after one that it does not
survive.
"""

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.memory import resident

GIVE_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Met:
    """How a case went."""

    message: str | None
    """What the user is told, without the folder's path; None: the case was accepted."""
    raised: str | None
    """Anything that is no message: an exception of the code, a time-out, the end of the process."""
    seconds: float
    bytes: int
    """Resident memory at its peak, above that before."""


Meet = Callable[[Path], str | None]
"""Meets one case in an empty folder; picklable."""


class Worker:
    """The process; a context manager."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> "Worker":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _start(self) -> None:
        self._ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()

    def meet(self, case: Meet) -> Met:
        """How `case` goes; never raises on its account."""
        started = time.monotonic()
        self._ours.send(case)
        try:
            if self._ours.poll(GIVE_UP_SECONDS):
                met: Met = self._ours.recv()
                return met
            raised = f"no answer within {GIVE_UP_SECONDS:.0f} s"
        except EOFError:
            self._process.join()
            raised = f"the process died, exit status {self._process.exitcode}"
        self._end()
        self._start()
        return Met(None, raised, time.monotonic() - started, 0)


def _serve(pipe: Connection) -> None:
    logging.disable(logging.CRITICAL)
    while True:
        try:
            case: Meet = pipe.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory() as name:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
            before, started = resident("VmRSS"), time.monotonic()
            message = raised = None
            try:
                message = case(Path(name))
            except Exception as error:  # whatever it is, it is what we are looking for
                raised = f"{type(error).__name__}: {error}"
            seconds, added = time.monotonic() - started, resident("VmHWM") - before
        shown = None if message is None else message.replace(f"{name}/", "").replace(name, ".")
        pipe.send(Met(shown, raised, seconds, added))
