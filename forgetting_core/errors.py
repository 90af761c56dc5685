"""The errors that a user can mend, apart from those that are ours."""


class InputError(ValueError):
    """The recipe, the data or the model is wrong.

    The message is complete: what is wrong, where (file, row, field), what was expected and what to do next.
    The command line prints it without a traceback and exits with status 2.
    """


class Interrupted(BaseException):
    """The step was asked to stop; it has saved what it could. Not an `Exception`, so that nothing swallows it."""


class OutOfMemoryError(RuntimeError):
    """The device's memory did not suffice; with a smaller micro-batch it may."""


class NumericalError(ArithmeticError):
    """A loss, gradient or score is not finite; the message names the step, rows and what to change."""
