"""Whatever a data file holds, its rows come out as they are, or each bad one is told."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetting_core.data.formats import Conversation, Tokens, recognise
from forgetting_core.data.pool import survey_skipping
from forgetting_core.data.rows import SUFFIXES, BadRow, RawRow, each_row, read_rows
from forgetting_core.errors import InputError, RowError

TEXT = st.text(max_size=20)
ROW = st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT})
NAMES = st.sampled_from(
    ["prompt", "completion", "messages", "instruction", "output", "input_ids", "labels", "noise"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content"]) | TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)


def write(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"d{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = (lines if ".jsonl" in suffix else json.dumps(rows)).encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    return path


@given(st.lists(ROW, min_size=1, max_size=5), st.sampled_from(SUFFIXES))
@settings(max_examples=150, deadline=None)
def test_rows_come_out_of_every_format_as_they_went_in(rows: list[dict[str, Any]], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert [row.fields for row in read_rows(write(Path(folder), suffix, rows))] == rows


@given(st.dictionaries(NAMES | TEXT, PLAIN, max_size=4))
@settings(max_examples=500, deadline=None)
def test_any_fields_are_an_instruction_or_a_message(fields: dict[str, Any]) -> None:
    try:
        found = recognise(RawRow("d.jsonl", 0, None, "d.jsonl, line 1", fields))
    except RowError as error:
        assert str(error).startswith("d.jsonl, line 1: ") and str(error).encode()
    else:
        assert isinstance(found, Conversation | Tokens)


@given(st.binary(max_size=80), st.sampled_from(SUFFIXES))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_rows_or_a_message(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"d{suffix}"
        path.write_bytes(data)
        try:
            rows = list(each_row(path))
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert [row.source_row for row in rows] == list(range(len(rows)))


@given(st.lists(ROW.map(json.dumps) | st.sampled_from(["{", "[1]", '{"a": 1}', '"x"']), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_skipping_leaves_exactly_the_good_rows(lines: list[str]) -> None:
    good = [json.loads(line) for line in lines if '"completion"' in line]
    with tempfile.TemporaryDirectory() as folder:
        path, aside = Path(folder) / "d.jsonl", Path(folder) / "aside.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")

        def check(rows: Any) -> None:
            for row in rows:
                recognise(row)

        try:
            pool = survey_skipping([path], check, aside)
        except InputError:
            assert not good
            return
        kept = aside.read_text().splitlines() if aside.exists() else []
        assert [row.fields for row in pool] == good and pool.rows == len(good)
        assert len(kept) == len(pool.skipped) == len(lines) - len(good)
        bad = [row for row in each_row(path) if isinstance(row, BadRow)]
        assert len(bad) <= len(kept)
