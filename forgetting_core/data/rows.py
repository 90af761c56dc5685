"""Reading raw rows from JSONL, JSON and Parquet files.

One place knows the file formats and how they break (a cut download, a stray byte, an empty file), so that each
breakage is told with the file and the line. What the fields of a row mean is decided in `formats`.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from forgetting_core.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its file has it."""

    source_file: str
    """Base name of the file."""
    source_row: int
    """Index in the file, from 0; blank lines do not count."""
    source: str | None
    """The row's field `source`; anything but a string is kept as its JSON text."""
    place: str
    """Where it stands, for messages: file and line (from 1) or row (from 0)."""
    fields: dict[str, Any]


def read_rows(file: Path) -> Iterator[RawRow]:
    """The rows of `file` in order, read as they are asked for (a JSON array is read whole).

    A `.json` file may hold an array of objects or, as many do, one object a line.
    Raises `InputError` for an unknown suffix, malformed JSON, a row that is no object, a truncated or corrupt file,
    invalid UTF-8, and a file without rows.
    """
    empty = True
    for index, (place, fields) in enumerate(_objects(file)):
        empty = False
        if not isinstance(fields, dict):
            raise InputError(f"{place}: expected an object with named fields, found {describe(fields)}")
        yield RawRow(file.name, index, _source(fields.get("source")), place, fields)
    if empty:
        raise InputError(f"{file}: the file has no rows; expected at least one")


def describe(value: Any) -> str:
    """What `value` is, in JSON's words and short enough for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value!r}" if len(value) <= 40 else f"the string {value[:40]!r}…"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with the fields {', '.join(f'`{key}`' for key in value) or '(none)'}"
    return f"a {type(value).__name__}"


def _source(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _objects(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of every row."""
    if not file.name.endswith(SUFFIXES):
        raise InputError(f"{file}: unknown kind of data file; expected one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise InputError(f"{file}: no such data file")
    if file.name.endswith(".parquet"):
        yield from _parquet(file)
    elif file.name.endswith((".json", ".json.gz")) and _starts_as_array(file):
        yield from _array(file)
    else:
        yield from _lines(file)


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    with _open(file) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                place = f"{file}, line {number}"
                yield place, _parse(line, place, "one JSON object a line")


def _array(file: Path) -> Iterator[tuple[str, Any]]:
    with _open(file) as stream:
        rows = _parse(stream.read(), str(file), "an array of JSON objects")
    for index, row in enumerate(rows):
        yield f"{file}, row {index} (counted from 0)", row


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    index = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    yield f"{file}, row {index} (counted from 0)", row
                    index += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable Parquet file after {index} rows: {error}") from error


def _parse(data: bytes, place: str, expected: str) -> Any:
    try:
        return json.loads(data)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place}: invalid UTF-8 at byte {error.start} ({error.reason}); expected text in UTF-8, "
            "so convert the file"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{place}: malformed JSON at line {error.lineno}, column {error.colno} of it: {error.msg}; "
            f"expected {expected}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{place}: JSON nested too deeply; expected {expected}") from error


def _starts_as_array(file: Path) -> bool:
    with _open(file) as stream:
        first = next((line for line in stream if line.strip()), b"")
    return first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The bytes of `file`, unpacked; what goes wrong while they are read becomes an `InputError`."""
    try:
        with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as stream:
            yield cast(BinaryIO, stream)
    except EOFError as error:
        raise InputError(f"{file}: the gzip file is cut off; fetch or pack it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file}: not a whole gzip file ({error}); fetch or pack it again") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
