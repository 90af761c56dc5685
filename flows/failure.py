"""What went wrong in a run, as the command line tells it: one message, what is kept, and how to go on."""

import shlex
from collections.abc import Sequence

from flows.outcome import StepFailedError
from forgetting_core.errors import InputError
from infra.errors import SourceError
from infra.launch import StoppedError
from infra.programs import program

INTERRUPTED = 130
"""Exit status."""


def was_interrupted(error: BaseException) -> bool:
    """Whether a run ended because it was asked to."""
    return isinstance(error, StepFailedError) and isinstance(error.__cause__, StoppedError)


def is_mendable(error: BaseException) -> bool:
    """Whether the recipe or the data is wrong, so that running again would not help."""
    cause = error.__cause__ if isinstance(error, StepFailedError) else error
    return isinstance(cause, InputError | SourceError)


def message_of(error: BaseException) -> str:
    """One line, with the step in front where it was one."""
    if not isinstance(error, StepFailedError):
        return str(error)
    return f"{error.label}: {'interrupted' if was_interrupted(error) else error.__cause__}"


def notes_of(error: BaseException) -> list[str]:
    """The traceback from the step's process, for a failure that is not the user's to mend."""
    if was_interrupted(error) or is_mendable(error):
        return []
    cause = error.__cause__ if isinstance(error, StepFailedError) else error
    return list(getattr(cause, "__notes__", []))


def command_line(command: str, recipe: str, overrides: Sequence[str], store: str | None, *options: str) -> str:
    """What to type to do it again."""
    words = [program("forgetting"), command, recipe, *options]
    words += [word for item in overrides for word in ("--set", item)]
    return shlex.join(words + (["--store", store] if store else []))
