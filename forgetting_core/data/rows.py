"""Reading raw rows from JSONL, JSON and Parquet files.

One place knows the file formats and how they break (a cut download, a stray byte, an empty file), so that each
breakage is told with the file and the line. What the fields of a row mean is decided in `formats`, and what becomes
of a bad row in `pool`. JSON itself is read in `strict_json`, Parquet in `parquet_rows`.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from forgetting_core.data.bounds import ARRAY_BYTES, MIB, ONE_ROW, ROW_BYTES, check_ratio
from forgetting_core.data.parquet_rows import parquet_rows
from forgetting_core.data.strict_json import parse_json
from forgetting_core.errors import InputError, RowError

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


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that cannot be used."""

    source_file: str
    source_row: int
    error: RowError
    content: Any
    """The row as far as it could be read: its value, the bytes of its line, or None."""


def read_rows(file: Path) -> Iterator[RawRow]:
    """The rows of `file` as `each_row` has them. Raises the `RowError` of a bad one as well."""
    for row in each_row(file):
        if isinstance(row, BadRow):
            raise row.error
        yield row


def each_row(file: Path) -> Iterator[RawRow | BadRow]:
    """The rows of `file` in order, good and bad, read as they are asked for (a JSON array is read whole).

    A `.json` file may hold an array of objects or, as many do, one object a line. A row is bad that is no object
    in UTF-8, or a line longer than `ROW_BYTES`.
    Raises `InputError` for an unknown suffix, a truncated or corrupt file, and a file without rows.
    """
    index = -1
    for index, (place, found) in enumerate(_found(file)):
        try:
            if isinstance(found, RowError):
                raise found
            value = _of_line(found, place) if isinstance(found, bytes) else found
            if not isinstance(value, dict):
                raise RowError(place, f"expected an object with named fields, found {describe(value)}")
            yield RawRow(file.name, index, _source(value.get("source"), place), place, value)
        except RowError as error:
            yield BadRow(file.name, index, error, None if isinstance(found, RowError) else found)
    if index < 0:
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


def _source(value: Any, place: str) -> str | None:
    if value is None:
        return None
    try:
        source = value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)
        source.encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise RowError(place, f"field `source`: expected the name of a source in Unicode text: {error}") from error
    return source


def _found(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, what is there) of every row: a value, the bytes of a line, or the `RowError` that reading it gave."""
    if not file.name.endswith(SUFFIXES):
        raise InputError(f"{file}: unknown kind of data file; expected one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise InputError(f"{file}: no such data file")
    if file.name.endswith(".parquet"):
        yield from parquet_rows(file)
    elif file.name.endswith((".json", ".json.gz")) and _starts_as_array(file):
        yield from _array(file)
    else:
        yield from _lines(file)


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Of a line that is too long only the beginning, which is too long as well."""
    with _open(file) as stream:
        number = 0
        while line := stream.readline(ROW_BYTES + 1):
            number += 1
            check_ratio(file, stream.tell())
            if line.strip():
                yield f"{file}, line {number}", line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            while len(line) > ROW_BYTES and not line.endswith(b"\n"):
                line = stream.readline(ROW_BYTES + 1)
                check_ratio(file, stream.tell())


def _of_line(line: bytes, place: str) -> Any:
    if len(line) > ROW_BYTES:
        raise RowError(place, f"longer than {ROW_BYTES // MIB} MiB; {ONE_ROW}")
    return parse_json(line, place, "one JSON object a line")


def _array(file: Path) -> Iterator[tuple[str, Any]]:
    data = bytearray()
    with _open(file) as stream:
        while len(data) <= ARRAY_BYTES and (more := stream.read(16 * MIB)):
            data += more
            check_ratio(file, len(data))
    if len(data) > ARRAY_BYTES:
        raise InputError(
            f"{file}: a JSON array of more than {ARRAY_BYTES // MIB} MiB, which would have to be read whole; "
            "write it as JSON lines or Parquet"
        )
    try:
        rows = parse_json(data.removeprefix(codecs.BOM_UTF8), str(file), "an array of JSON objects")
    except RowError as error:
        raise InputError(str(error)) from error  # no row of it can be told from the next
    for index, row in enumerate(rows):
        yield f"{file}, row {index} (counted from 0)", row


def _starts_as_array(file: Path) -> bool:
    with _open(file) as stream:
        beginning = stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
        while not beginning and (more := stream.read(MIB)):
            beginning = more.lstrip()
    return beginning.startswith(b"[")


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    """The bytes of `file`, unpacked; what goes wrong while they are read becomes an `InputError`."""
    try:
        with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as stream:
            if isinstance(stream, io.BufferedReader) and stream.peek(2).startswith(b"\x1f\x8b"):
                raise InputError(f"{file}: the file is gzipped; let its name end with `.gz`")
            yield cast(BinaryIO, stream)
    except EOFError as error:
        raise InputError(f"{file}: the gzip file is cut off; fetch or pack it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{file}: not a whole gzip file ({error}); fetch or pack it again") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
