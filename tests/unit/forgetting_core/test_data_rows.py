"""Reading data files and recognising what their rows are."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forgetting_core.data.formats import Conversation, Tokens, Turn, recognise
from forgetting_core.data.rows import RawRow, read_rows
from forgetting_core.errors import InputError

ROWS = [
    {"prompt": "a", "completion": "b", "source": "x"},
    {"prompt": "é\u2028ü", "completion": "", "source": None},
]


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def raw(**fields: Any) -> RawRow:
    return RawRow("f.jsonl", 0, None, "f.jsonl, line 1", fields)


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.json.gz", "d.parquet", "lines/d.json"])
def test_every_file_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        array = ".jsonl" not in name and not name.startswith("lines")
        write(path.parent, path.name, json.dumps(ROWS, indent=1).encode() if array else jsonl(*ROWS))

    rows = list(read_rows(path))

    assert [row.fields for row in rows] == ROWS
    assert [(row.source_file, row.source_row, row.source) for row in rows] == [
        (path.name, 0, "x"),
        (path.name, 1, None),
    ]


def test_blank_lines_and_a_byte_order_mark_are_not_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl", b"\xef\xbb\xbf" + jsonl(ROWS[0]) + b"\n  \n" + jsonl(ROWS[1]) + b"\n")
    assert [(row.source_row, row.place.split(", ")[-1]) for row in read_rows(path)] == [
        (0, "line 1"),
        (1, "line 4"),
    ]


GOOD = jsonl(ROWS[0])


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("d.jsonl", GOOD + b'{"prompt": "a", \n', ["d.jsonl, line 2", "malformed JSON", "one JSON object a line"]),
        ("d.json", b'[{"prompt": 1},', ["d.json", "malformed JSON", "an array of JSON objects"]),
        ("d.jsonl", GOOD + b'\n["a"]\n', ["d.jsonl, line 3", "expected an object", "a list of 1"]),
        ("d.json", b'[{}, "text"]', ["d.json, row 1 (counted from 0)", "expected an object", "the string 'text'"]),
        ("d.jsonl", GOOD + b'{"prompt": "\xff"}\n', ["d.jsonl, line 2", "invalid UTF-8 at byte 12"]),
        ("d.jsonl", b"\n\n", ["d.jsonl", "no rows"]),
        ("d.jsonl", b"", ["d.jsonl", "no rows"]),
        ("d.json", b"[]", ["d.json", "no rows"]),
        ("d.csv", b"a,b", ["d.csv", "unknown kind", ".parquet"]),
        ("d.parquet", b"PAR1 not really", ["d.parquet", "not a readable Parquet file"]),
    ],
)
def test_a_broken_file_is_told_with_its_place(tmp_path: Path, name: str, data: bytes, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        list(read_rows(write(tmp_path, name, data)))
    assert all(part in str(error.value) for part in parts), error.value


def test_a_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "d.jsonl.gz", jsonl(*ROWS * 500))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"d\.jsonl\.gz: the gzip file is cut off"):
        list(read_rows(path))


def test_what_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(GOOD)
    with pytest.raises(InputError, match=r"not a whole gzip file"):
        list(read_rows(tmp_path / "d.jsonl.gz"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data file"):
        list(read_rows(tmp_path / "d.jsonl"))


@pytest.mark.parametrize(
    ("fields", "turns"),
    [
        ({"prompt": "p", "completion": "c"}, [("user", "p"), ("assistant", "c")]),
        ({"prompt": "", "completion": ""}, [("user", ""), ("assistant", "")]),
        ({"instruction": "i", "input": "", "output": "o"}, [("user", "i"), ("assistant", "o")]),
        ({"instruction": "i", "output": "o"}, [("user", "i"), ("assistant", "o")]),
        ({"instruction": "i", "input": "x", "output": "o"}, [("user", "i\n\nx"), ("assistant", "o")]),
        (
            {
                "messages": [{"role": r, "content": r[0]} for r in ("system", "user", "assistant")],
                "prompt": "unused",
            },
            [("system", "s"), ("user", "u"), ("assistant", "a")],
        ),
    ],
)
def test_text_formats_are_recognised_from_their_columns(
    fields: dict[str, Any], turns: list[tuple[Any, str]]
) -> None:
    row = recognise(raw(**fields))
    assert isinstance(row, Conversation)
    assert row.turns == tuple(Turn(role, content) for role, content in turns)


def test_absent_values_of_other_formats_do_not_hide_a_format() -> None:
    row = recognise(raw(messages=None, input_ids=None, labels=None, prompt="p", completion="c"))
    assert isinstance(row, Conversation)


def test_tokenised_rows_are_taken_as_they_are() -> None:
    row = recognise(raw(input_ids=[5, 6, 7], labels=[-100, 6, 7], noise=[0, 1, 0]))
    assert isinstance(row, Tokens)
    assert row.input_ids.tolist() == [5, 6, 7] and row.input_ids.dtype == np.int32
    assert row.labels.tolist() == [-100, 6, 7] and row.labels.dtype == np.int32
    assert row.noise is not None and row.noise.tolist() == [0, 1, 0]


def message(role: Any = "user", content: Any = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"prompt": "p", "id": 1}, ["`completion` is missing", "`prompt`, `id`"]),
        ({"instruction": "p", "response": "r"}, ["`output` is missing"]),
        ({"input_ids": [1]}, ["`labels` is missing"]),
        ({"prompt": "p", "completion": None}, ["`completion`", "found null"]),
        ({"prompt": 3, "completion": "c"}, ["`prompt`", "expected a string", "the number 3"]),
        ({"prompt": "p", "completion": ["c"]}, ["`completion`", "expected a string", "a list of 1"]),
        ({"instruction": "i", "input": {"a": 1}, "output": "o"}, ["`input`", "an object with the fields `a`"]),
        ({"prompt": "p", "completion": "\ud800"}, ["`completion`", "surrogate", "character 0"]),
        ({"messages": []}, ["`messages`", "at least one message", "a list of 0"]),
        ({"messages": "hi"}, ["`messages`", "the string 'hi'"]),
        ({"messages": ["hi"]}, ["`messages[0]`", "`role` and `content`"]),
        ({"messages": [message(), {"role": "user"}]}, ["`messages[1].content`", "missing"]),
        ({"messages": [message("tool")]}, ["`messages[0].role`", "'system', 'user', 'assistant'", "'tool'"]),
        ({"messages": [message(content=None)]}, ["`messages[0].content`", "null"]),
        ({"messages": [message()], "noise": []}, ["`noise`", "`completion`"]),
        ({"text": "t"}, ["no format recognised", "`text`", "`prompt` + `completion`", "`messages`", "`input_ids`"]),
        ({}, ["no format recognised", "no field at all"]),
        ({"input_ids": [1, 2], "labels": [1]}, ["`labels`", "2 as in `input_ids`", "found 1"]),
        ({"input_ids": [], "labels": []}, ["`input_ids`", "at least one token"]),
        ({"input_ids": [1, -1], "labels": [1, 1]}, ["`input_ids[1]`", "the number -1"]),
        ({"input_ids": [1.0], "labels": [1]}, ["`input_ids[0]`", "the number 1.0"]),
        ({"input_ids": [True], "labels": [1]}, ["`input_ids[0]`", "the boolean true"]),
        ({"input_ids": [1, 2], "labels": [2, -100]}, ["`labels[0]`", "not shifted", "found 2"]),
        ({"input_ids": [1], "labels": [1], "noise": [2]}, ["`noise[0]`", "from 0 to 1"]),
        ({"input_ids": [1], "labels": [1], "noise": [1, 1]}, ["`noise`", "1 as in `input_ids`"]),
        ({"prompt": "p", "completion": "cc", "noise": [[0, 3]]}, ["`noise[0]`", "2 characters", "[0, 3)"]),
        ({"prompt": "p", "completion": "cc", "noise": [[0, 1], [1]]}, ["`noise[1]`", "pair"]),
        ({"prompt": "p", "completion": "cc", "noise": "all"}, ["`noise`", "spans", "'all'"]),
    ],
)
def test_a_wrong_row_is_told_with_field_expected_and_found(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        recognise(raw(**fields))
    assert all(part in str(error.value) for part in ["f.jsonl, line 1", *parts]), error.value
