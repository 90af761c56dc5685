"""The rows that splits are drawn from: every usable row of some data files, in their order.

What `data.on_bad_row` means is decided here. With `error` the first bad row ends the step. With `skip` a bad row
counts as not there, so that as many rows are drawn as are asked for, and is kept aside with the reason. For that
every row has to be tokenised to see whether it can be, the ones that are not drawn, too.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from forgetting_core.data.rows import BadRow, RawRow, each_row, read_rows
from forgetting_core.errors import InputError, RowError

BAD_ROWS_FILE = "bad_rows.jsonl"
MOST_KEPT = 2**16
"""Characters of a bad row."""
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Pool:
    """The usable rows of `files`."""

    files: tuple[Path, ...]
    rows: int
    """How many."""
    says_noise: bool
    """Whether any says what is noise."""
    skipped: frozenset[tuple[int, int]] = frozenset()
    """(index of the file, row in the file) of those left out."""

    def __iter__(self) -> Iterator[RawRow]:
        """The rows, read again."""
        for number, file in enumerate(self.files):
            for row in each_row(file):
                if (number, row.source_row) in self.skipped:
                    continue
                if isinstance(row, BadRow):
                    raise row.error
                yield row


def survey(files: Sequence[Path], check: Callable[[RawRow], object]) -> Pool:
    """Count the rows of `files`. Raises the `RowError` of the first that is bad, or that `check` refuses."""
    count, says_noise = 0, False
    for file in files:
        for row in read_rows(file):
            check(row)
            count += 1
            says_noise = says_noise or row.fields.get("noise") is not None
    return Pool(tuple(files), count, says_noise)


def survey_skipping(files: Sequence[Path], check: Callable[[Sequence[RawRow]], None], aside: Path) -> Pool:
    """Count the usable rows of `files`, and append the others to the file `aside`, a line of JSON for each.

    `check` raises `RowError` when one of the rows cannot be used. Raises `InputError` when a file cannot be read
    or has no usable row.
    """
    count, says_noise = 0, False
    skipped = set()
    for number, file in enumerate(files):
        before = count
        first: BadRow | None = None
        for row in _judged(each_row(file), check):
            if isinstance(row, BadRow):
                first = first or row
                skipped.add((number, row.source_row))
                _keep(row, aside)
            else:
                count += 1
                says_noise = says_noise or row.fields.get("noise") is not None
        if count == before:
            assert first is not None, "a file without any row is refused where it is read"
            raise InputError(f"{file}: none of its rows can be used, so none is skipped; the first: {first.error}")
    return Pool(tuple(files), count, says_noise, frozenset(skipped))


def _judged(
    rows: Iterator[RawRow | BadRow], check: Callable[[Sequence[RawRow]], None]
) -> Iterator[RawRow | BadRow]:
    """The rows in order, those that `check` refuses as bad ones."""
    while batch := list(islice(rows, _BATCH_ROWS)):
        refused = _refused([row for row in batch if isinstance(row, RawRow)], check)
        for row in batch:
            error = refused.get(row.source_row)
            yield BadRow(row.source_file, row.source_row, error, row.fields) if error else row  # type: ignore[union-attr]


def _refused(rows: Sequence[RawRow], check: Callable[[Sequence[RawRow]], None]) -> dict[int, RowError]:
    """{row in the file: why} of those that `check` refuses, found by halving."""
    try:
        if rows:
            check(rows)
    except RowError as error:
        if len(rows) == 1:
            return {rows[0].source_row: error}
        half = len(rows) // 2
        return _refused(rows[:half], check) | _refused(rows[half:], check)
    return {}


def _keep(row: BadRow, aside: Path) -> None:
    """Append one bad row: where it was, why it is there, and its content, cut where it is long."""
    if isinstance(row.content, bytes):
        content = row.content.decode("utf-8", "backslashreplace")
    else:
        content = json.dumps(row.content, default=str, ensure_ascii=False)
    record: dict[str, Any] = {
        "source_file": row.source_file,
        "source_row": row.source_row,
        "place": row.error.place.rpartition(", ")[2],
        "reason": row.error.fault,
        "content": content[:MOST_KEPT],
    }
    aside.parent.mkdir(parents=True, exist_ok=True)
    with aside.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record, sort_keys=True) + "\n")
