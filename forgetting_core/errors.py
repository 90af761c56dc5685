"""The errors that a user can mend, apart from those that are ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, changes its state, or turns text around."""
_OUT_OF_MEMORY = re.compile("OutOfMemoryError|out of memory|can't allocate memory|CUBLAS_STATUS_ALLOC_FAILED")
MOST_SHOWN = 600
"""Characters of what somebody else wrote: a row's fields, a library's message."""


class InputError(ValueError):
    """The recipe, the data or the model is wrong.

    The message is complete: what is wrong, where (file, row, field), what was expected and what to do next.
    The command line prints it without a traceback and exits with status 2. What it quotes from data cannot steer
    the terminal that shows it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", message))


def brief(error: BaseException) -> str:
    """What a library says, in one line: some name all that they know."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


class RowError(InputError):
    """One row of the data is wrong, and the others may be used without it (`data.on_bad_row: skip`)."""

    def __init__(self, place: str, fault: str) -> None:
        """`place`: file and line or row. `fault`: what is wrong there; no part of the message names a folder."""
        self.fault = _cut(fault.encode("utf-8", "backslashreplace").decode())  # field names may be anything
        self.place = place
        super().__init__(f"{place}: {self.fault}")

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str]]:
        """It comes out of the process of its step."""
        return RowError, (self.place, self.fault)


class Interrupted(BaseException):
    """The step was asked to stop; it has saved what it could. Not an `Exception`, so that nothing swallows it."""


class OutOfMemoryError(RuntimeError):
    """The device's memory did not suffice; with a smaller micro-batch it may."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises `OutOfMemoryError` for all ways in which torch says so within."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
            raise OutOfMemoryError(f"out of memory: {str(error).splitlines()[0][:300]}") from error
        raise


class NumericalError(ArithmeticError):
    """A loss, gradient, weight or score is not finite, or forgetting runs away and is to stop then.

    The message names the step, rows and what to change.
    """
