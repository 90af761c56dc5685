"""Work of two kinds side by side: the next item is prepared while the last one is used."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """`items`, one of them always in preparation on a thread, from now on; what that raises is raised in its place.

    Worth it where one side leaves Python's lock to the other: reading, tokenising, compressing.
    """
    iterator, nothing = iter(items), object()
    thread = ThreadPoolExecutor(1)
    first = thread.submit(next, iterator, nothing)

    def rest() -> Iterator[Item]:
        with thread:
            coming = first
            while (item := coming.result()) is not nothing:
                coming = thread.submit(next, iterator, nothing)
                yield item  # type: ignore[misc]  # it is not `nothing`

    return rest()
