"""Comparisons made of the files that evaluations leave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.comparison import COMPARISON_FILE, PAGE_FILE
from forgetting_core.comparison.items import read_evaluation
from forgetting_core.comparison.page import write_comparison
from forgetting_core.errors import InputError
from forgetting_core.progress import Progress

MODELS = ("sft", "forget")
SEEDS = (1, 2, 3)


def evaluation(
    folder: Path, metrics: dict[str, dict[str, float]], samples: dict[str, list[dict[str, Any]]]
) -> Path:
    (folder / "samples").mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({**metrics, "protocol": {"name": "harness"}}))
    for name, lines in samples.items():
        text = "".join(json.dumps({"doc_id": place, **line}) + "\n" for place, line in enumerate(lines))
        (folder / "samples" / f"{name}.jsonl").write_text(text)
    return folder


def answers(values: list[float]) -> list[dict[str, Any]]:
    return [{"doc": {"question": place}, "metrics": {"acc": value}} for place, value in enumerate(values)]


def quiz(folder: Path, values: list[float]) -> Path:
    return evaluation(folder, {"quiz": {"acc": float(np.mean(values))}}, {"quiz": answers(values)})


def compared(tmp_path: Path, values: dict[int, dict[str, list[float]]]) -> dict[str, Any]:
    folders = {
        seed: {model: [quiz(tmp_path / f"{seed}-{model}", given)] for model, given in of.items()}
        for seed, of in values.items()
    }
    out = tmp_path / "out"
    out.mkdir()
    write_comparison("mine", evaluations=folders, curves={}, against="sft", out=out, progress=Progress())
    found: dict[str, Any] = json.loads((out / COMPARISON_FILE).read_text())
    return found


def test_a_model_that_is_right_more_often_on_the_same_items_is_ahead_beyond_doubt(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    easy = random.random(100) < 0.6
    values = {seed: {"sft": (easy * 1.0).tolist(), "forget": []} for seed in SEEDS}
    for seed in SEEDS:
        gained = ~easy & (random.random(100) < 0.5)
        values[seed]["forget"] = ((easy | gained) * 1.0).tolist()
    comparison = compared(tmp_path, values)
    (line,) = comparison["lines"]
    assert (line["task"], line["metric"]) == ("quiz", "acc")
    assert line["models"]["sft"]["mean"] == pytest.approx(easy.mean())
    found = line["differences"]["forget"]
    assert found["mean"] == pytest.approx(line["models"]["forget"]["mean"] - line["models"]["sft"]["mean"])
    assert found["low"] > 0
    # unpaired, two accuracies of a hundred items could not be told apart so well
    assert found["stderr"] < line["models"]["forget"]["stderr"] * np.sqrt(2) * 0.9
    assert set(found["per_seed"]) == {str(seed) for seed in SEEDS}


def test_the_same_evaluations_give_the_same_bytes(tmp_path: Path) -> None:
    values = {1: {"sft": [0.0, 1.0, 0.0], "forget": [1.0, 1.0, 0.0]}}
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        compared(folder, values)
    for name in (COMPARISON_FILE, PAGE_FILE):
        assert (first / "out" / name).read_bytes() == (second / "out" / name).read_bytes()


def test_models_that_were_asked_different_items_are_not_paired(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quiz acc, seed 1: forget and sft were asked different items"):
        compared(tmp_path, {1: {"sft": [0.0, 1.0], "forget": [1.0, 1.0, 0.0]}})


def test_a_mean_over_tokens_is_weighed_by_the_tokens_of_its_rows(tmp_path: Path) -> None:
    lines = [
        {"metrics": {"loss": 2.0}, "weight": 30},
        {"metrics": {"loss": 4.0}, "weight": 10},
    ]
    folder = evaluation(tmp_path / "e", {"held_out": {"loss": 2.5, "tokens": 40}}, {"held_out": lines})
    items = read_evaluation(folder).items["held_out", "loss"]
    assert items.weights.tolist() == [30, 10]


def test_a_mean_over_languages_counts_each_alike_however_many_items_it_has(tmp_path: Path) -> None:
    samples = {"tydiqa_goldp_en": answers([1.0, 1.0, 1.0, 1.0]), "tydiqa_goldp_sw": answers([0.0])}
    folder = evaluation(tmp_path / "e", {"tydiqa": {"acc": 0.5, "acc.en": 1.0, "acc.sw": 0.0}}, samples)
    items = read_evaluation(folder).items
    assert items["tydiqa", "acc"].weights.tolist() == [0.25, 0.25, 0.25, 0.25, 1.0]


def test_languages_count_alike_even_for_a_model_that_is_always_wrong(tmp_path: Path) -> None:
    def asked(folder: Path, english: float) -> Path:
        samples = {"tydiqa_goldp_en": answers([english] * 8), "tydiqa_goldp_sw": answers([0.0] * 2)}
        return evaluation(folder, {"tydiqa": {"acc": english / 2}}, samples)

    folders = {1: {"sft": [asked(tmp_path / "sft", 1.0)], "forget": [asked(tmp_path / "forget", 0.0)]}}
    out = tmp_path / "out"
    out.mkdir()
    write_comparison("mine", evaluations=folders, curves={}, against="sft", out=out, progress=Progress())
    (line,) = json.loads((out / COMPARISON_FILE).read_text())["lines"]
    assert line["differences"]["forget"]["mean"] == pytest.approx(-0.5)


def test_curves_of_seeds_are_averaged_step_by_step(tmp_path: Path) -> None:
    from forgetting_core.comparison.charts import curve_charts
    from forgetting_core.report.curves import Curve

    whole = np.arange(1.0, 62.0)
    full, gap = Curve(whole, whole), Curve(np.delete(whole, 30), np.delete(whole, 30))
    # had they been paired by place, the mean of two straight lines were bent
    (both,) = curve_charts({"forget": {"loss_negative": [full, gap]}})
    (one,) = curve_charts({"forget": {"loss_negative": [gap, gap]}})
    assert both == one


def test_a_metric_that_is_no_mean_over_items_has_no_pairs(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "e", {"quiz": {"acc": 0.9}}, {"quiz": answers([0.0, 1.0])})
    assert read_evaluation(folder).items == {}


def test_a_measure_that_some_answers_do_not_define_is_compared_where_both_models_have_it(tmp_path: Path) -> None:
    def diverse(folder: Path, values: list[float | None]) -> Path:
        lines = [
            {"doc": place, "metrics": {} if value is None else {"distinct_2": value}}
            for place, value in enumerate(values)
        ]
        mean = float(np.mean([value for value in values if value is not None]))
        return evaluation(folder, {"diversity": {"distinct_2": mean}}, {"diversity": lines})

    folders = {
        1: {
            "sft": [diverse(tmp_path / "sft", [0.5, None, 0.25, 0.5])],
            "forget": [diverse(tmp_path / "forget", [1.0, 0.75, None, 0.5])],
        }
    }
    out = tmp_path / "out"
    out.mkdir()
    write_comparison("mine", evaluations=folders, curves={}, against="sft", out=out, progress=Progress())
    (line,) = json.loads((out / COMPARISON_FILE).read_text())["lines"]
    assert line["models"]["forget"]["mean"] == pytest.approx(0.75)
    assert line["differences"]["forget"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert line["differences"]["forget"]["items"] == 2


def test_a_metric_of_one_of_several_filters_has_the_items_of_that_filter(tmp_path: Path) -> None:
    lines = [
        {"doc_id": item, "doc": item, "filter": name, "metrics": {"acc": value}}
        for item in range(2)
        for name, value in (("strict", 0.0), ("flexible", 1.0))
    ]
    folder = evaluation(tmp_path / "e", {"quiz": {"acc.strict": 0.0, "acc.flexible": 1.0}}, {"quiz": lines})
    items = read_evaluation(folder).items
    assert items["quiz", "acc.strict"].values.tolist() == [0.0, 0.0]
    assert items["quiz", "acc.flexible"].values.tolist() == [1.0, 1.0]


def test_a_damaged_line_of_samples_is_named(tmp_path: Path) -> None:
    folder = quiz(tmp_path / "e", [1.0])
    with (folder / "samples" / "quiz.jsonl").open("a") as lines:
        lines.write("{not json\n")
    with pytest.raises(InputError, match=r"quiz\.jsonl, line 2: expected JSON"):
        read_evaluation(folder)


def test_names_of_tasks_cannot_put_markup_into_the_page(tmp_path: Path) -> None:
    task = "<script>alert(1)</script>"
    metrics = {task: {"acc": 0.5}}
    folders = {1: {model: [evaluation(tmp_path / model, metrics, {})] for model in MODELS}}
    out = tmp_path / "out"
    out.mkdir()
    write_comparison(task, evaluations=folders, curves={}, against="sft", out=out, progress=Progress())
    assert "<script" not in (out / PAGE_FILE).read_text()
