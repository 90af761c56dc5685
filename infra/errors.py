"""The error for what a user asks of the store and cannot have, apart from a store that fails (`StoreError`)."""


class RequestError(ValueError):
    """An id, a name or a folder is wrong; the message says which, what was expected and what to do."""
