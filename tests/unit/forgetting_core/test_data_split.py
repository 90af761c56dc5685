"""The step `split`: which rows go where, what is stored, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig

from forgetting_core.config import DataConfig, SplitConfig
from forgetting_core.data import split_data
from forgetting_core.data.selection import choose_rows
from forgetting_core.errors import InputError, Interrupted
from forgetting_core.progress import Progress
from forgetting_core.tables import SPLIT_SCHEMA, TokenRows
from tests.unit.forgetting_core.test_data_templates import SHARED, make_tokenizer, needs_shared


class Listener(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, float, str]] = []
        self.notes: list[str] = []

    def advance(self, done: float, total: float, unit: str) -> None:
        super().advance(done, total, unit)
        self.calls.append((done, total, unit))

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer().save_pretrained(folder)
    LlamaConfig(vocab_size=400).save_pretrained(folder)
    return folder


def rows_file(folder: Path, rows: list[dict[str, Any]], name: str = "d.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(number: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"question {i}", "completion": f"answer {i}", **more} for i in range(number)]


def run(
    out: Path,
    model: Path,
    train: list[Path],
    reference: list[Path] | None = None,
    progress: Progress | None = None,
    data: DataConfig | None = None,
    **split: Any,
) -> dict[str, Any]:
    out.mkdir()
    return split_data(
        data or DataConfig(template="tulu"),
        SplitConfig(**split),
        train=train,
        reference=reference,
        model=model,
        out=out,
        progress=progress or Progress(),
    )


def stored(out: Path, name: str) -> list[tuple[str, int]]:
    table = pq.read_table(out / name)
    assert table["row"].to_pylist() == list(range(len(table)))
    return list(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist(), strict=True))


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_splits_are_disjoint_in_source_order_and_complete(tmp_path: Path, model: Path) -> None:
    files = [rows_file(tmp_path, questions(30), "b.jsonl"), rows_file(tmp_path, questions(20), "a.jsonl")]
    result = run(tmp_path / "out", model, files, reference_rows=10, validation_rows=5)
    splits = {name: stored(tmp_path / "out", name) for name in ("train", "reference", "validation")}
    order = [("b.jsonl", i) for i in range(30)] + [("a.jsonl", i) for i in range(20)]
    assert sorted((row for rows in splits.values() for row in rows), key=order.index) == order
    assert all(rows == sorted(rows, key=order.index) for rows in splits.values())
    assert result["rows"] == {"train": 35, "reference": 10, "validation": 5}


def test_the_tables_have_the_schema_and_the_counts_are_theirs(tmp_path: Path, model: Path) -> None:
    rows = questions(5, source="x") + questions(4)
    result = run(tmp_path / "out", model, [rows_file(tmp_path, rows)], reference_rows=0)
    path = tmp_path / "out" / "train" / "part-00000.parquet"
    assert pq.read_schema(path).equals(SPLIT_SCHEMA)
    assert pq.read_table(path)["source"].to_pylist() == ["x"] * 5 + [None] * 4
    split = TokenRows.read(tmp_path / "out" / "train")
    assert result["tokens"]["train"] == len(split.input_ids)
    assert result["response_tokens"]["train"] == split.response_mask().sum()
    statistics = json.loads((tmp_path / "out" / "aux" / "statistics.json").read_text())["train"]
    assert {name: counts["rows"] for name, counts in statistics["sources"].items()} == {"x": 5, "(none)": 4}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["aux", "train"]


def test_equal_settings_give_equal_bytes_and_another_seed_other_rows(tmp_path: Path, model: Path) -> None:
    files = [rows_file(tmp_path, questions(40))]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, model, files, reference_rows=10, validation_rows=5, train_rows=20, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert stored(tmp_path / "a", "reference") != stored(tmp_path / "c", "reference")


def test_more_training_rows_leave_reference_and_validation_alone(tmp_path: Path, model: Path) -> None:
    files = [rows_file(tmp_path, questions(40))]
    for name, train_rows in (("few", 5), ("many", 20), ("all", None)):
        run(tmp_path / name, model, files, reference_rows=10, validation_rows=5, train_rows=train_rows)
    for name in ("reference", "validation"):
        assert (
            len({(tmp_path / run / name / "part-00000.parquet").read_bytes() for run in ("few", "many", "all")})
            == 1
        )
    assert set(stored(tmp_path / "few", "train")) < set(stored(tmp_path / "many", "train"))


def test_reference_data_of_its_own_is_used_for_the_reference_split_only(tmp_path: Path, model: Path) -> None:
    train, reference = rows_file(tmp_path, questions(20)), rows_file(tmp_path, questions(6), "r.jsonl")
    run(tmp_path / "all", model, [train], [reference], validation_rows=3)
    run(tmp_path / "some", model, [train], [reference], validation_rows=3, reference_rows=4)
    assert stored(tmp_path / "all", "reference") == [("r.jsonl", i) for i in range(6)]
    assert len(stored(tmp_path / "some", "reference")) == 4
    assert len(stored(tmp_path / "all", "train")) == 17
    assert stored(tmp_path / "all", "train") == stored(tmp_path / "some", "train")


def test_choosing_is_a_stretch_of_one_permutation() -> None:
    chosen = choose_rows(SplitConfig(reference_rows=3, validation_rows=2, train_rows=4, seed=7), 12, None)
    order = np.random.Generator(np.random.PCG64(7)).permutation(12)
    assert {name: rows.tolist() for name, rows in chosen.items()} == {
        "reference": sorted(order[:3].tolist()),
        "validation": sorted(order[3:5].tolist()),
        "train": sorted(order[5:9].tolist()),
    }


@pytest.mark.parametrize(
    ("split", "available", "parts"),
    [
        ({}, (10, None), ["split.reference_rows", "give the number of rows", "data.reference"]),
        ({"reference_rows": 6, "train_rows": 5}, (10, None), ["10 rows", "6 (split.reference_rows)", "= 11"]),
        ({"reference_rows": 8, "validation_rows": 2}, (10, None), ["10 rows", "= 11, at least one training row"]),
        ({"train_rows": 11}, (10, 5), ["10 rows", "11 (split.train_rows)"]),
        ({"reference_rows": 6}, (10, 5), ["split.reference_rows", "at most 5", "found 6"]),
    ],
)
def test_too_few_rows_are_told_with_the_numbers(split: dict[str, Any], available: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        choose_rows(SplitConfig(**split), *available)
    assert all(part in str(error.value) for part in parts), error.value


def test_the_noise_column_is_there_only_when_a_row_says_what_is_noise(tmp_path: Path, model: Path) -> None:
    noisy = {"prompt": "q", "completion": "yes no", "noise": [[4, 6]]}
    run(tmp_path / "out", model, [rows_file(tmp_path, [noisy, *questions(3)])], reference_rows=0)
    table = pq.read_table(tmp_path / "out" / "train")
    assert [sum(row) > 0 for row in table["noise"].to_pylist()] == [True, False, False, False]
    assert [len(row) for row in table["noise"].to_pylist()] == [len(row) for row in table["input_ids"].to_pylist()]


def test_tokenised_rows_need_no_tokenizer(tmp_path: Path) -> None:
    LlamaConfig(vocab_size=10).save_pretrained(tmp_path / "model")
    rows = [{"input_ids": [1, 2, 9], "labels": [-100, 2, 9]}] * 2
    data = DataConfig(max_length=2)
    run(tmp_path / "out", tmp_path / "model", [rows_file(tmp_path, rows)], reference_rows=1, data=data)
    assert pq.read_table(tmp_path / "out" / "train")["input_ids"].to_pylist() == [[1, 2]]


def test_a_token_id_beyond_the_embedding_is_refused(tmp_path: Path, model: Path) -> None:
    rows = [*questions(2), {"input_ids": [1, 400], "labels": [-100, 400]}]
    with pytest.raises(
        InputError, match=r"d\.jsonl, line 3: token id 400 is beyond the model's 400 embedding rows"
    ):
        run(tmp_path / "out", model, [rows_file(tmp_path, rows)], reference_rows=0)


def test_oddities_are_counted_and_noted_per_split(tmp_path: Path, model: Path) -> None:
    long, empty = {"prompt": "word " * 50, "completion": "x"}, {"prompt": "q", "completion": ""}
    train, reference = rows_file(tmp_path, [long, empty, *questions(3)]), rows_file(tmp_path, [empty], "r.jsonl")
    listener = Listener()
    data = DataConfig(template="plain", max_length=40)
    result = run(tmp_path / "out", model, [train], [reference], listener, data)
    assert result["rows_without_response"] == {"train": 1, "reference": 0, "validation": 0}
    assert result["empty_answers"] == {"train": 1, "reference": 1, "validation": 0}
    assert result["cut_rows"] == {"train": 1, "reference": 0, "validation": 0}
    assert [note.split(" rows")[0] for note in listener.notes] == [
        "reference: 1 of 1",
        "train: 1 of 5",
        "train: 1 of 5",
        "train: 1 of 5",
    ]
    assert listener.calls[-1] == (6, 6, "rows")


def test_a_training_split_without_any_response_token_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no response token in any of its 3 rows"):
        run(
            tmp_path / "out",
            model,
            [rows_file(tmp_path, questions(3))],
            reference_rows=0,
            data=DataConfig(max_length=2),
        )


def test_a_wrong_row_is_refused_even_when_it_is_not_chosen(tmp_path: Path, model: Path) -> None:
    rows = [*questions(30), {"prompt": "only"}]
    for seed in range(3):
        with pytest.raises(InputError, match="line 31: the field `completion` is missing"):
            out = tmp_path / f"out{seed}"
            run(out, model, [rows_file(tmp_path, rows)], reference_rows=0, train_rows=1, seed=seed)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a Hugging Face model folder"):
        run(tmp_path / "out", tmp_path / "nothing", [rows_file(tmp_path, questions(3))], reference_rows=0)


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    LlamaConfig(vocab_size=400).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="no tokenizer files"):
        run(tmp_path / "out", tmp_path / "model", [rows_file(tmp_path, questions(3))], reference_rows=0)


def test_the_step_stops_when_it_is_asked_to(tmp_path: Path, model: Path) -> None:
    listener = Listener()
    listener.stop_requested = True
    with pytest.raises(Interrupted):
        run(tmp_path / "out", model, [rows_file(tmp_path, questions(3))], reference_rows=0, progress=listener)


@needs_shared
@pytest.mark.parametrize("template", ["tokenizer", "tulu"])
def test_real_data_runs_through(tmp_path: Path, template: Any) -> None:
    files = [SHARED / "data" / name for name in ("instructions.jsonl.gz", "conversations.jsonl.gz")]
    model, data = SHARED / "oracle" / "tiny_ref", DataConfig(template=template, max_length=512)
    result = run(tmp_path / "out", model, files, data=data, reference_rows=100, validation_rows=50, train_rows=800)
    assert result["rows"] == {"train": 800, "reference": 100, "validation": 50}
    split = TokenRows.read(tmp_path / "out" / "train")
    assert split.lengths.max() <= 512 and result["cut_rows"]["train"] > 0
    assert 0 < result["response_tokens"]["train"] < result["tokens"]["train"]
    statistics = json.loads((tmp_path / "out" / "aux" / "statistics.json").read_text())
    assert {"dolly", "alpaca", "oasst1"} <= set(statistics["train"]["sources"])
