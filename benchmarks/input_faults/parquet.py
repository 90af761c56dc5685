"""Parquet files: damaged, of other columns and types, and with text that is none."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.input_faults.case import ROWS, Case, Make, with_file

ROW_2 = "d.parquet, row 2 (counted from 0)"
TEXTS = ["a", "b", "c"]


def table(columns: Mapping[str, Any]) -> bytes:
    """A Parquet file of these columns."""
    return stored(pa.table(dict(columns)))


def stored(rows: pa.Table) -> bytes:
    """A Parquet file of these rows."""
    file = io.BytesIO()
    pq.write_table(rows, file)
    return file.getvalue()


def parquet(make: bytes | Callable[[], bytes]) -> Make:
    """The good experiment with this Parquet file."""
    return with_file("d.parquet", make)


def good() -> bytes:
    """The good rows."""
    return stored(pa.Table.from_pylist(ROWS))


def not_utf8() -> bytes:
    """A text column whose third value is Latin-1; nothing checks it on the way into the file."""
    raw = pa.array([b"a", b"b", b"caf\xe9"], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    return table({"prompt": text, "completion": TEXTS})


def wrong_page() -> bytes:
    """The footer is whole and the data are not."""
    data = bytearray(good())
    data[8:40] = bytes(32)
    return bytes(data)


CASES = (
    Case("no Parquet at all", parquet(b"PAR1 not really"), ("d.parquet", "not a readable Parquet file")),
    Case("a Parquet file of no bytes", parquet(b""), ("d.parquet", "not a readable Parquet file")),
    Case("a Parquet file cut off", parquet(lambda: good()[:-30]), ("d.parquet", "not a readable Parquet file")),
    Case("a Parquet file with damaged data", parquet(wrong_page), ("d.parquet", "not a readable Parquet file")),
    Case("JSON named .parquet", parquet(b'{"prompt": "a"}\n'), ("d.parquet", "not a readable Parquet file")),
    Case(
        "a Parquet file without rows", parquet(lambda: good() and table({"prompt": []})), ("d.parquet", "no rows")
    ),
    Case(
        "a column twice",
        parquet(lambda: stored(pa.table([pa.array(TEXTS)] * 3, names=["prompt", "completion", "prompt"]))),
        ("d.parquet", "`prompt`", "twice", "rename"),
    ),
    Case(
        "a column of numbers for text",
        parquet(lambda: table({"prompt": TEXTS, "completion": [1, 2, 3]})),
        ("d.parquet, row 0", "`completion`", "expected a string", "the number 1"),
    ),
    Case(
        "a column of bytes for text",
        parquet(lambda: table({"prompt": TEXTS, "completion": [b"x", b"y", b"z"]})),
        ("d.parquet, row 0", "`completion`", "expected a string", "a bytes"),
    ),
    Case(
        "a null in a column",
        parquet(lambda: table({"prompt": TEXTS, "completion": ["a", "b", None]})),
        (ROW_2, "`completion`", "expected a value", "null"),
    ),
    Case("text that is not UTF-8", parquet(not_utf8), (ROW_2, "not UTF-8", "convert")),
    Case(
        "messages of text",
        parquet(lambda: table({"messages": [["a"], ["b"]]})),
        ("d.parquet, row 0", "messages[0]", "`role` and `content`"),
    ),
    Case(
        "messages as a map",
        parquet(lambda: table({"messages": pa.array([[("role", "user")]], pa.map_(pa.string(), pa.string()))})),
        ("d.parquet, row 0", "messages[0]", "`role` and `content`"),
    ),
    Case(
        "a text of 5 MB",
        parquet(lambda: table({"prompt": ["x" * 5_000_000], "completion": ["y"]})),
        ("d.parquet", "its rows are 4 MiB each", "one conversation a row"),
    ),
)
