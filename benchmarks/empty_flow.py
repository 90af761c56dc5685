"""What nobody who uses Prefect can avoid: a flow of seven tasks that do nothing, one after the other."""

from typing import Any

from prefect import flow, task

TASKS = 7


@task
def nothing(before: Any) -> None:
    """A step without work."""


@flow
def empty() -> None:
    """Seven of them in a chain."""
    last = nothing.submit(None)
    for _ in range(TASKS - 1):
        last = nothing.submit(last)
    last.result()


if __name__ == "__main__":
    empty()
