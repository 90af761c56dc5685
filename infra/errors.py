"""Errors of `infra` for the command line, apart from a store that fails (`StoreError`)."""


class RequestError(ValueError):
    """An id, a name or a folder is wrong; the message says which, what was expected and what to do."""


class SourceError(ValueError):
    """A source that the recipe names is not there; the message says which and what was expected."""


class TrackingError(RuntimeError):
    """MLflow could not be read or written by a command that is about MLflow; the message says where and why."""


class StackError(RuntimeError):
    """A process of the local stack did not start, failed or would not end; the message has the end of its log."""
