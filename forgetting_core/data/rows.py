"""Reading raw rows from JSONL, JSON and Parquet files.

One place knows the file formats and how they break (a cut download, a stray byte, an empty file), so that each
breakage is told with the file and the line. What the fields of a row mean is decided in `formats`. A small file can
unpack to more than any machine holds: a row, an array and a batch of Parquet rows have bounds, and so has the
whole, as a multiple of the file.
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

ROW_BYTES = 64 * 2**20
"""The longest row: no model reads a millionth of it."""
ARRAY_BYTES = 2**30
"""The largest JSON array, since it is read whole."""
BATCH_BYTES = 2**28
MOST_BATCH_ROWS = 1024
MOST_UNPACKED = 200
"""Times the size of its file. Text packs to a tenth or a twentieth; gzip's limit is a thousandth."""
RATIO_MATTERS_BYTES = 2**28
_ONE_ROW = "expected one conversation a row"

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
        number = 0
        while line := stream.readline(ROW_BYTES + 1):
            number += 1
            place = f"{file}, line {number}"
            if len(line) > ROW_BYTES:
                raise InputError(f"{place}: longer than {ROW_BYTES // 2**20} MiB; expected one JSON object a line")
            _check_ratio(file, stream.tell())
            if line.strip():
                yield place, _parse(line, place, "one JSON object a line")


def _array(file: Path) -> Iterator[tuple[str, Any]]:
    with _open(file) as stream:
        text = stream.read(ARRAY_BYTES + 1)
    if len(text) > ARRAY_BYTES:
        raise InputError(
            f"{file}: a JSON array of more than {ARRAY_BYTES // 2**20} MiB; write one JSON object a line (.jsonl)"
        )
    rows = _parse(text, str(file), "an array of JSON objects")
    del text
    for index, row in enumerate(rows):
        yield f"{file}, row {index} (counted from 0)", row


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    index = unpacked = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(_batch_rows(file, table.metadata)):
                _check_row_sizes(file, index, batch)
                unpacked += batch.nbytes
                _check_ratio(file, unpacked)
                for row in batch.to_pylist():
                    yield f"{file}, row {index} (counted from 0)", row
                    index += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable Parquet file after {index} rows: {error}") from error


def _batch_rows(file: Path, metadata: pq.FileMetaData) -> int:
    """How many rows to read at a time: a value that a column holds once may be that of all its rows.

    Raises `InputError` for rows that are too large on average.
    """
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [group.column(number) for number in range(group.num_columns)]
        size = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)
        if size > ROW_BYTES * max(1, group.num_rows):
            raise InputError(f"{file}: its rows are {size // max(1, group.num_rows) // 2**20} MiB each; {_ONE_ROW}")
        largest = max(largest, size)
    return max(1, min(MOST_BATCH_ROWS, BATCH_BYTES // largest))


def _check_row_sizes(file: Path, first: int, batch: pa.RecordBatch) -> None:
    if batch.nbytes > ROW_BYTES:  # else no row of it can be that large
        for number in range(batch.num_rows):
            if batch.slice(number, 1).nbytes > ROW_BYTES:
                place = f"{file}, row {first + number} (counted from 0)"
                raise InputError(f"{place}: larger than {ROW_BYTES // 2**20} MiB; {_ONE_ROW}")


def _check_ratio(file: Path, unpacked: int) -> None:
    if unpacked > RATIO_MATTERS_BYTES and unpacked > MOST_UNPACKED * file.stat().st_size:
        raise InputError(
            f"{file}: unpacks to more than {MOST_UNPACKED} times its size, as no text does; write it without"
            " compression if that is right"
        )


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
        first = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
        while not first.strip() and (more := stream.read(2**16)):
            first = more
    return first.lstrip().startswith(b"[")


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
