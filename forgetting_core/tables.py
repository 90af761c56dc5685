"""The Parquet tables of the artifacts: their schemas, canonical writing, and reading into flat arrays.

The bytes are part of an artifact's identity, so the settings are fixed here and nothing volatile (times, names
of the writer's machine) enters a file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forgetting_core.ahead import ahead
from forgetting_core.errors import InputError

IGNORE_INDEX = -100
"""Label of a token that is not a response token (Hugging Face's convention)."""

SPLIT_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("source_file", pa.string()),
        ("source_row", pa.int64()),
        ("source", pa.string()),
    ]
)
NOISE_FIELD = pa.field("noise", pa.list_(pa.int8()))
"""Added to `SPLIT_SCHEMA` when the raw rows say which characters are planted noise: 1 noise, 0 clean."""
LOSS_SCHEMA = pa.schema([("row", pa.int64()), ("loss", pa.list_(pa.float32()))])
LABEL_SCHEMA = pa.schema([("row", pa.int64()), ("label", pa.list_(pa.int8()))])

ROWS_PER_GROUP = 4096


def write_parquet(path: Path, batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema) -> None:
    """Write `batches` to `path` with the settings that make equal tables equal bytes."""
    with parquet_writer(path, schema) as writer:
        for batch in batches:
            table = pa.Table.from_batches([batch], schema) if isinstance(batch, pa.RecordBatch) else batch
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """What `write_parquet` writes with, for whoever has the tables one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, version="2.6")


def read_parquet(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All `*.parquet` of `folder` in name order. Raises `InputError` when there is none."""
    return pa.concat_tables([pq.read_table(file, columns=columns) for file in _parquet_files(folder)])


def read_groups(folder: Path, column: str, rows: int = ROWS_PER_GROUP) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`flatten` of a list column, `rows` rows at a time (the last ones fewer), however the files cut it.

    The next rows are read on a thread meanwhile, so memory is that of a few groups. Raises `InputError` when there
    is no file.
    """
    return ahead(_regrouped(_parquet_files(folder), column, rows))


def _regrouped(files: list[Path], column: str, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    waiting: list[pa.Array] = []
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(rows, columns=[column]):
            read = batch.column(0)
            missing = rows - sum(map(len, waiting))
            waiting.append(read[:missing])
            if len(read) >= missing:
                yield flatten(pa.chunked_array(waiting))
                waiting = [read[missing:]]
    if any(map(len, waiting)):
        yield flatten(pa.chunked_array(waiting))


def _parquet_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise InputError(f"{folder}: no *.parquet file; expected the output of an earlier step")
    return files


def column_names(folder: Path) -> list[str]:
    """The columns of the `*.parquet` of `folder`. Raises `InputError` when there is none."""
    return list(pq.read_schema(_parquet_files(folder)[0]).names)


def count_rows(folder: Path) -> int:
    """Rows of all `*.parquet` of `folder`, from their footers."""
    return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


def shard_rows(rows: int, block_rows: int, shards: int) -> list[range]:
    """The rows of each of at most `shards` shards of a scoring: whole blocks, as evenly as possible."""
    blocks = -(-rows // block_rows)
    edges = [block_rows * (index * blocks // shards) for index in range(shards)]
    return [range(first, min(stop, rows)) for first, stop in pairwise([*edges, rows]) if first < stop]


def flatten(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(values (T,), offsets int64 (R+1,)) of a list column without nulls."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]


def list_array(values: np.ndarray, offsets: np.ndarray, item_type: pa.DataType) -> pa.ListArray:
    """The inverse of `flatten`: row i is `values[offsets[i]:offsets[i+1]]`."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values, type=item_type))


@dataclass(frozen=True)
class TokenRows:
    """A split as flat arrays; row i is `[offsets[i]:offsets[i+1]]`."""

    input_ids: np.ndarray
    """int32 (T,)"""
    labels: np.ndarray
    """int32 (T,), `IGNORE_INDEX` where not a response token"""
    offsets: np.ndarray
    """int64 (R+1,)"""

    @classmethod
    def read(cls, folder: Path) -> "TokenRows":
        """The split stored in `folder`."""
        table = read_parquet(folder, ["input_ids", "labels"])
        input_ids, offsets = flatten(table["input_ids"])
        labels, _ = flatten(table["labels"])
        return cls(input_ids, labels, offsets)

    @classmethod
    def read_blocks(cls, folder: Path, rows: int) -> Iterator["TokenRows"]:
        """The split stored in `folder`, `rows` rows at a time."""
        columns = (read_groups(folder, name, rows) for name in ("input_ids", "labels"))
        for (input_ids, offsets), (labels, _) in zip(*columns, strict=True):
            yield cls(input_ids, labels, offsets)

    def blocks(self, rows: int) -> Iterator["TokenRows"]:
        """The same of a split in memory."""
        for first in range(0, len(self), rows):
            offsets = self.offsets[first : first + rows + 1]
            tokens = slice(offsets[0], offsets[-1])
            yield TokenRows(self.input_ids[tokens], self.labels[tokens], offsets - offsets[0])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (R,): tokens of each row."""
        return np.diff(self.offsets)

    def response_mask(self) -> np.ndarray:
        """bool (T,): the response tokens: labelled, and not the first of their row (nothing predicts it)."""
        mask = self.labels != IGNORE_INDEX
        mask[self.offsets[:-1][self.lengths > 0]] = False
        return mask

    def row_of(self, tokens: np.ndarray) -> np.ndarray:
        """int64 (N,): the row of each of `tokens` (N,), places in the flat arrays."""
        return np.searchsorted(self.offsets, tokens, side="right") - 1

    def count(self, mask: np.ndarray) -> np.ndarray:
        """int64 (R,): how many tokens of each row `mask` (T,) selects."""
        cumulative = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
        return cumulative[self.offsets[1:]] - cumulative[self.offsets[:-1]]

    def rows(self) -> Iterator[slice]:
        """The slice of each row."""
        return (slice(start, end) for start, end in zip(self.offsets[:-1], self.offsets[1:], strict=True))
