"""Reading rows from Parquet files, a bounded batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forgetting_core.data.bounds import MIB, ONE_ROW, ROW_BYTES, check_ratio
from forgetting_core.errors import InputError, RowError, brief

_BATCH_BYTES = 256 * MIB
_MOST_BATCH_ROWS = 1024
_OF_VALUES = (ValueError, OverflowError, LookupError)
"""What becomes of values that Python has no form for, names of columns among them."""


def parquet_rows(file: Path) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    """(place, the row or why it cannot be read) of every row.

    Raises `InputError` for what is no Parquet file, has a column twice, or is too large.
    """
    index = unpacked = 0
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"{file}: the column `{twice[0]}` is there twice; rename one of the two")
            for batch in table.iter_batches(_batch_rows(file, table)):
                unpacked += batch.nbytes
                check_ratio(file, unpacked)
                for row in _values(batch):
                    place = f"{file}, row {index} (counted from 0)"
                    yield place, RowError(place, row) if isinstance(row, str) else row
                    index += 1
    except InputError:
        raise
    except (pa.ArrowException, OSError, *_OF_VALUES) as error:
        raise InputError(f"{file}: not a readable Parquet file after {index} rows: {brief(error)}") from error


def _batch_rows(file: Path, table: pq.ParquetFile) -> int:
    """How many rows to read at a time: a value that a column holds once may be that of all its rows.

    Raises `InputError` for rows that are too large on average, and what Arrow raises for damaged metadata.
    """
    largest = 1
    for number in range(table.metadata.num_row_groups):
        # reading checks the metadata; asking for those of a column that are wrong would abort the process
        next(table.iter_batches(1, row_groups=[number]), None)
        group = table.metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        size = sum(max(column.total_uncompressed_size, 8 * column.num_values) for column in columns)
        if size > ROW_BYTES * max(1, group.num_rows):
            raise InputError(f"{file}: its rows are {size // max(1, group.num_rows) // MIB} MiB each; {ONE_ROW}")
        largest = max(largest, size)
    return max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES // largest))


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Every row, or what is wrong with it."""
    try:
        if batch.nbytes <= ROW_BYTES:  # else one of its rows may be larger
            yield from batch.to_pylist()
            return
        fault = f"larger than {ROW_BYTES // MIB} MiB; {ONE_ROW}"
    except UnicodeDecodeError as error:
        fault = f"text that is not UTF-8 ({error.reason} at byte {error.start} of it); convert it"
    except _OF_VALUES as error:  # a date beyond Python's, say
        fault = f"a value that cannot be read: {brief(error)}"
    if len(batch) == 1:
        yield fault
        return
    half = len(batch) // 2
    yield from _values(batch.slice(0, half))
    yield from _values(batch.slice(half))
