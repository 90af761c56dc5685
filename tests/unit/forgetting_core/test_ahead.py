"""Items prepared on a thread: the same items in the same order, and errors where they belong."""

from collections.abc import Iterator
from threading import Event

import pytest

from forgetting_core.ahead import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(range(5))) == [0, 1, 2, 3, 4]
    assert list(ahead([])) == []
    assert list(ahead([None, 1])) == [None, 1]


def test_the_next_item_is_prepared_while_one_is_used() -> None:
    second = Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    first, *rest = (second.wait(10) for _ in ahead(items()))
    assert first and rest == [True]


def test_the_first_item_is_prepared_before_anyone_asks() -> None:
    """So two sources that are read together begin together."""
    prepared = Event()

    def items() -> Iterator[int]:
        prepared.set()
        yield 1

    source = ahead(items())
    assert prepared.wait(10)
    assert list(source) == [1]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("2")

    source = ahead(items())
    assert next(source) == 1
    with pytest.raises(KeyError):
        next(source)


def test_who_stops_early_waits_for_one_item_only() -> None:
    prepared = []

    def items() -> Iterator[int]:
        for item in range(100):
            prepared.append(item)
            yield item

    for item in ahead(items()):
        if item == 3:
            break
    assert len(prepared) <= 5
