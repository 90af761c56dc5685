"""`data.on_bad_row: skip`: what is left out, what is kept aside, and what is an error all the same."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from forgetting_core.config import DataConfig, identity
from forgetting_core.data.pool import MOST_KEPT
from forgetting_core.errors import InputError, RowError
from tests.unit.forgetting_core.test_data_split import Listener, contents, questions, rows_file, run, stored
from tests.unit.forgetting_core.test_data_split import model as model

SKIP = DataConfig(template="plain", on_bad_row="skip")
BAD: list[Any] = [
    {"prompt": "no answer"},
    {"prompt": "p", "completion": 3},
    {"messages": [{"role": "user", "content": "a"}]},
    {"prompt": "a\ufdd0", "completion": "b"},
    {"input_ids": [5, 9999], "labels": [-100, 9999]},
    ["a"],
]
"""The fourth and fifth are found while tokenising only, the third by the template."""


def mixed(folder: Path, name: str = "d.jsonl") -> Path:
    """Ten good rows with a bad one behind each of the first ones, and a line that is no JSON at the end."""
    rows: list[Any] = []
    for index, good in enumerate(questions(10)):
        rows += [good, *BAD[index : index + 1]]
    path = rows_file(folder, rows, name)
    path.write_bytes(path.read_bytes() + b'{"prompt": "caf\xe9\n')
    return path


def aside(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "aux" / "bad_rows.jsonl").read_text().splitlines()]


def test_bad_rows_are_left_out_and_the_good_ones_keep_their_places(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path / "out", model, [mixed(tmp_path)], data=SKIP, reference_rows=0)
    assert result["rows"]["train"] == 10
    assert result["bad_rows"] == {"train": 7}
    assert [row for _, row in stored(tmp_path / "out", "train")] == [0, 2, 4, 6, 8, 10, 12, 13, 14, 15]


def test_the_split_is_that_of_the_good_rows_alone(tmp_path: Path, model: Path) -> None:
    run(tmp_path / "skipped", model, [mixed(tmp_path)], data=SKIP, reference_rows=3, train_rows=5)
    good = rows_file(tmp_path, questions(10), "good.jsonl")
    run(tmp_path / "good", model, [good], data=DataConfig(template="plain"), reference_rows=3, train_rows=5)
    for name in ("train", "reference"):
        both = [pq.read_table(tmp_path / out / name)["input_ids"].to_pylist() for out in ("skipped", "good")]
        assert both[0] == both[1]


def test_bad_rows_are_kept_with_place_reason_and_content(tmp_path: Path, model: Path) -> None:
    run(tmp_path / "out", model, [mixed(tmp_path)], data=SKIP, reference_rows=0)
    kept = aside(tmp_path / "out")
    assert [(row["source_row"], row["place"]) for row in kept] == [
        *((1 + 2 * index, f"line {2 + 2 * index}") for index in range(6)),
        (16, "line 17"),
    ]
    reasons = [row["reason"] for row in kept]
    expected = ("`completion` is missing", "the number 3", "`data.template: plain`", "U+FDD0", "token id 9999")
    assert all(part in reason for part, reason in zip(expected, reasons, strict=False)), reasons
    assert "expected an object" in reasons[5] and "invalid UTF-8" in reasons[6]
    assert json.loads(kept[0]["content"]) == BAD[0] and kept[6]["content"] == '{"prompt": "caf\\xe9\n'
    assert str(tmp_path) not in json.dumps(kept), "an artifact names no folder of the machine that made it"


def test_skipping_is_counted_and_noted(tmp_path: Path, model: Path) -> None:
    listener = Listener()
    train, reference = mixed(tmp_path), rows_file(tmp_path, [*questions(3), {}], "r.jsonl")
    result = run(tmp_path / "out", model, [train], [reference], listener, SKIP)
    assert result["bad_rows"] == {"train": 7, "reference": 1}
    assert listener.notes[0].startswith("data.train: 7 of 17 rows cannot be used and were skipped")
    assert listener.notes[1].startswith("data.reference: 1 of 4 rows")


def test_the_same_data_give_the_same_artifact(tmp_path: Path, model: Path) -> None:
    for out in ("a", "b"):
        run(tmp_path / out, model, [mixed(tmp_path)], data=SKIP, reference_rows=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_long_bad_row_is_kept_in_part(tmp_path: Path, model: Path) -> None:
    file = rows_file(tmp_path, [*questions(2), {"prompt": "x" * 5_000_000}])
    run(tmp_path / "out", model, [file], data=SKIP, reference_rows=0)
    (kept,) = aside(tmp_path / "out")
    assert "longer than 4 MiB" in kept["reason"] and len(kept["content"]) == MOST_KEPT


def test_without_a_bad_row_nothing_is_kept_aside(tmp_path: Path, model: Path) -> None:
    result = run(tmp_path / "out", model, [rows_file(tmp_path, questions(3))], data=SKIP, reference_rows=0)
    assert result["bad_rows"] == {"train": 0}
    assert not (tmp_path / "out" / "aux" / "bad_rows.jsonl").exists()


def test_a_file_without_a_good_row_is_an_error(tmp_path: Path, model: Path) -> None:
    bad = rows_file(tmp_path, [{"prompt": "a"}] * 3, "bad.jsonl")
    with pytest.raises(InputError, match=r"bad\.jsonl: none of its rows can be used.*line 1: the field `compl"):
        run(tmp_path / "out", model, [mixed(tmp_path), bad], data=SKIP, reference_rows=0)


def test_a_damaged_file_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match="cut off"):
        run(tmp_path / "out", model, [mixed(tmp_path), tmp_path / "d.jsonl.gz"], data=SKIP, reference_rows=0)


def test_a_model_that_is_wrong_is_no_bad_row(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="needs a chat template") as error:
        data = DataConfig(template="tokenizer", on_bad_row="skip")
        (tmp_path / "bare").mkdir()
        for path in model.iterdir():
            if path.name != "chat_template.jinja":
                (tmp_path / "bare" / path.name).write_bytes(path.read_bytes())
        run(tmp_path / "out", tmp_path / "bare", [mixed(tmp_path)], data=data, reference_rows=0)
    assert not isinstance(error.value, RowError)


def test_a_bad_row_is_an_error_unless_skipping_is_asked_for(tmp_path: Path, model: Path) -> None:
    with pytest.raises(RowError, match="line 2: the field `completion` is missing"):
        run(tmp_path / "out", model, [mixed(tmp_path)], data=DataConfig(template="plain"), reference_rows=0)


def test_results_from_before_the_field_keep_their_fingerprints() -> None:
    assert identity(DataConfig()) == identity(DataConfig(on_bad_row="error"))
    assert "on_bad_row" not in identity(DataConfig()) and identity(SKIP)["on_bad_row"] == "skip"
