"""How much memory a computation takes at its peak, in a process of its own so that nothing else counts."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MB = 10**6


@dataclass(frozen=True)
class Measured:
    """A function's result and the resident memory of the process that computed it."""

    result: Any
    before: int
    """Bytes when the function was called: the interpreter and what is imported."""
    peak: int
    """Bytes at most, while it ran; the kernel may miss some dozens of pages of what was given back since."""

    @property
    def added(self) -> int:
        """Bytes at most, above those before."""
        return self.peak - self.before


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a module-level function in a new process (Linux). Raises `RuntimeError` when that does not end well."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        measured: Measured = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__qualname__} ended with exit status {process.exitcode}") from None
    process.join()
    return measured


def _call(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before = resident("VmRSS")
    result = function(*arguments)
    pipe.send(Measured(result, before, resident("VmHWM")))


def resident(field: str) -> int:
    """Bytes of this process that are resident now (`VmRSS`), or were at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kibibytes) * 1024
