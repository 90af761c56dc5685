"""The rows of one split in the making: counted, and written as the artifact's table a group at a time."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from forgetting_core.data.tokenising import TokenisedRow
from forgetting_core.tables import (
    IGNORE_INDEX,
    NOISE_FIELD,
    ROWS_PER_GROUP,
    SPLIT_SCHEMA,
    list_array,
    parquet_writer,
)

NO_SOURCE = "(none)"
"""Stands for rows without a `source` in the statistics."""


@dataclass
class Counts:
    """What a user wants to know of a set of rows."""

    rows: int = 0
    tokens: int = 0
    response_tokens: int = 0
    rows_without_response: int = 0
    empty_answers: int = 0
    """Rows with an answer that has no text."""
    cut_rows: int = 0

    def add(self, row: TokenisedRow) -> None:
        """Count one more row."""
        response = int(np.count_nonzero(row.tokens.labels[1:] != IGNORE_INDEX))
        self.rows += 1
        self.tokens += len(row.tokens.input_ids)
        self.response_tokens += response
        self.rows_without_response += response == 0
        self.empty_answers += row.empty_answer
        self.cut_rows += row.cut


class SplitTable:
    """Rows in the order in which they are stored; those of one group at most are held."""

    def __init__(self, folder: Path, noise: bool) -> None:
        """For `part-00000.parquet` in `folder`, with the column `noise` (default 0) if `noise`."""
        self.counts = Counts()
        self._by_source: defaultdict[str, Counts] = defaultdict(Counts)
        self._rows: list[TokenisedRow] = []
        self._path = folder / "part-00000.parquet"
        self._schema = SPLIT_SCHEMA.append(NOISE_FIELD) if noise else SPLIT_SCHEMA
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: TokenisedRow) -> None:
        """Append `row`; its position becomes the column `row`."""
        self.counts.add(row)
        self._by_source[NO_SOURCE if row.raw.source is None else row.raw.source].add(row)
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._write_group()

    def statistics(self) -> dict[str, Any]:
        """The counts, and the same for each value of `source`."""
        return {
            **asdict(self.counts),
            "sources": {name: asdict(counts) for name, counts in self._by_source.items()},
        }

    def finish(self) -> None:
        """Write what is left. There is no file when there are no rows."""
        if self._rows:
            self._write_group()
        if self._writer is not None:
            self._writer.close()

    def _write_group(self) -> None:
        if self._writer is None:
            self._writer = parquet_writer(self._path, self._schema)
        self._writer.write_table(self._group(), row_group_size=ROWS_PER_GROUP)
        self._rows.clear()

    def _group(self) -> pa.Table:
        rows, start = self._rows, self.counts.rows - len(self._rows)
        offsets = np.cumsum([0, *(len(row.tokens.input_ids) for row in rows)])
        columns = {
            "row": pa.array(np.arange(start, start + len(rows)), pa.int64()),
            "input_ids": list_array(np.concatenate([row.tokens.input_ids for row in rows]), offsets, pa.int32()),
            "labels": list_array(np.concatenate([row.tokens.labels for row in rows]), offsets, pa.int32()),
            "source_file": pa.array([row.raw.source_file for row in rows], pa.string()),
            "source_row": pa.array([row.raw.source_row for row in rows], pa.int64()),
            "source": pa.array([row.raw.source for row in rows], pa.string()),
            "noise": list_array(np.concatenate([_noise(row) for row in rows]), offsets, pa.int8()),
        }
        return pa.table([columns[name] for name in self._schema.names], schema=self._schema)


def _noise(row: TokenisedRow) -> npt.NDArray[np.int8]:
    return np.zeros(len(row.tokens.input_ids), dtype=np.int8) if row.tokens.noise is None else row.tokens.noise
