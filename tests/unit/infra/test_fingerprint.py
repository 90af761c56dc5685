"""The canonical JSON and the fingerprint of a step."""

import json
import random
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from infra.fingerprint import canonical_json, fingerprint, step_fingerprint, step_payload

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def shuffled(value: Any, seed: int) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, seed)) for key, item in value.items()]
        random.Random(seed).shuffle(items)
        return dict(items)
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


@given(values, st.integers())
def test_key_order_does_not_matter(value: Any, seed: int) -> None:
    assert canonical_json(shuffled(value, seed)) == canonical_json(value)


@given(values)
def test_json_reads_back_as_the_same_value_and_the_same_bytes(value: Any) -> None:
    read = json.loads(canonical_json(value))
    assert read == value
    assert canonical_json(read) == canonical_json(value)


def test_the_bytes_are_pinned() -> None:
    value = {"ρ": "0.7", "b": [1, 1.0, -0.0, 1e-4, True, None], "a": ("x",)}
    assert canonical_json(value) == '{"a":["x"],"b":[1,1.0,0.0,0.0001,true,null],"ρ":"0.7"}'.encode()


def test_a_number_and_its_text_and_a_truth_value_differ() -> None:
    assert len({canonical_json(value) for value in (1, 1.0, "1", True)}) == 4


@dataclass
class Point:
    x: int = 0


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    x: int = 0


@pytest.mark.parametrize(
    "refused",
    [
        {1, 2},
        frozenset(),
        len,
        Point(),
        Path("a"),
        b"a",
        {1: "a"},
        {None: "a"},
        np.float64(1.0),
        np.int64(1),
        np.zeros(2),
        np.bool_(True),
        object(),
        int,
        1j,
        Decimal("0.7"),
        Fraction(1, 2),
        datetime(2026, 1, 1),
        UUID(int=0),
        bytearray(b"a"),
        range(2),
        iter([1]),
        {"a": 1}.keys(),
        Colour.RED,
        Size.SMALL,
        Text("a"),
        Pair(1, 2),
        OrderedDict(a=1),
        Counter("a"),
        Model(),
        ...,
        {(1, 2): "a"},
        {1.5: "a"},
        {True: "a"},
        {Colour.RED: "a"},
        float("nan"),
        float("inf"),
        -float("inf"),
        "\ud800",
        {"\udfff": 1},
    ],
    ids=lambda value: ascii(value).partition(" at 0x")[0][:30],
)
def test_what_has_no_canonical_form_is_refused_with_its_path(refused: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"config\.lora\.r\[1\]"):
        canonical_json({"config": {"lora": {"r": [0, refused]}}})


def test_every_part_of_the_payload_moves_the_fingerprint() -> None:
    prints = {
        step_fingerprint("split", 1, {"seed": 42}, {"data": "d"}),
        step_fingerprint("score", 1, {"seed": 42}, {"data": "d"}),
        step_fingerprint("split", 2, {"seed": 42}, {"data": "d"}),
        step_fingerprint("split", 1, {"seed": 43}, {"data": "d"}),
        step_fingerprint("split", 1, {"seed": 42}, {"data": "e"}),
        step_fingerprint("split", 1, {"seed": 42}, {"model": "d"}),
    }
    assert len(prints) == 6


def test_the_fingerprint_is_pinned_so_that_an_upgrade_keeps_the_cache() -> None:
    found = step_fingerprint("partition", 1, {"rho": "0.7"}, {"base": "aa"})
    assert found == "b2c3fb2baf3ec32b21c043037db05058793ee6e175c9c815c73c4b30ffa97adc"


def test_a_payload_with_other_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        fingerprint({**step_payload("split", 1, {}, {}), "time": 1})


def test_a_value_without_canonical_form_gives_no_fingerprint() -> None:
    with pytest.raises(TypeError, match=r"config\.tasks: a builtins\.set has no canonical JSON form"):
        step_fingerprint("evaluate", 1, {"tasks": {"boolq"}}, {})
