"""The errors for what a user asks and cannot have, apart from a store that fails (`StoreError`)."""


class RequestError(ValueError):
    """An id, a name or a folder is wrong; the message says which, what was expected and what to do."""


class TrackingError(RuntimeError):
    """MLflow could not be read or written by a command that is about MLflow; the message says where and why."""
