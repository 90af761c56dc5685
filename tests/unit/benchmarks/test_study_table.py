"""The table of the controlled study, from records of known content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.study.markdown import markdown
from benchmarks.study.plot import plot
from benchmarks.study.table import tabulate
from benchmarks.study.verdict import judge

ITEMS = 100
SEEDS = (1, 2, 3)
PUBLISHED = {"base": 20, "reference": 50, "sft": 30, "ignore": 50, "npo": 70, "forget, t_max 0.25": 10}
"""Right answers of `ITEMS`."""


def arm(right: int) -> dict[str, Any]:
    training = {"loss_positive": [2.0, 1.0], "loss_negative": [3.0, 9.0]}
    return {"items": [1.0] * right + [0.0] * (ITEMS - right), "asked": "questions", "training": training}


def record(
    seed: int, rights: dict[str, int], *, kind: str = "published", reference: str = "clean"
) -> dict[str, Any]:
    return {
        "seed": seed,
        "noise": "0.3",
        "reference": reference,
        "rho": "0.7",
        "kind": kind,
        "arms": {name: arm(right + seed) for name, right in rights.items()},
        "detection": {"auc": 0.7 + seed / 100} if kind == "published" else None,
    }


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return [record(seed, PUBLISHED) for seed in SEEDS]


def line_of(condition: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (line for line in condition["lines"] if line["arm"] == name)
    return found


def test_accuracies_are_means_over_seeds_with_their_standard_error(records: list[dict[str, Any]]) -> None:
    (condition,) = tabulate(records)
    accuracy = line_of(condition, "sft")["accuracy"]
    assert accuracy["per_seed"] == {1: 0.31, 2: 0.32, 3: 0.33}
    assert accuracy["mean"] == pytest.approx(0.32)
    assert accuracy["stderr"] == pytest.approx(np.std([0.31, 0.32, 0.33], ddof=1) / np.sqrt(3))
    assert condition["detection"]["mean"] == pytest.approx(0.72)


def test_differences_are_of_the_same_seeds_when_some_are_missing(records: list[dict[str, Any]]) -> None:
    gentle = [record(seed, {"forget, t_max 0.03": 55}, kind="gentle") for seed in SEEDS[:2]]
    (condition,) = tabulate(records + gentle)
    against = line_of(condition, "forget, t_max 0.03")["against"]
    assert against["sft"]["per_seed"] == pytest.approx({1: 0.25, 2: 0.25})
    assert against["ignore"]["mean"] == pytest.approx(0.05)
    assert not line_of(condition, "sft")["against"]
    assert line_of(condition, "ignore")["against"].keys() == {"sft"}


def test_what_does_not_see_the_reference_stands_beside_both(records: list[dict[str, Any]]) -> None:
    noisy = [record(seed, PUBLISHED, reference="noisy") for seed in SEEDS]
    controls = [record(seed, {"ignore, random labels": 25}, kind="controls") for seed in SEEDS]
    conditions = tabulate(records + noisy + controls)
    assert [condition["reference"] for condition in conditions] == ["clean", "noisy"]
    for condition in conditions:
        assert line_of(condition, "ignore, random labels")["against"]["sft"]["mean"] == pytest.approx(-0.05)


def test_models_that_were_asked_other_questions_are_not_paired(records: list[dict[str, Any]]) -> None:
    records[0]["arms"]["sft"]["asked"] = "other questions"
    with pytest.raises(ValueError, match="different questions"):
        tabulate(records)


def test_the_verdict_names_what_beats_both_and_what_harms(records: list[dict[str, Any]]) -> None:
    verdict = judge(tabulate(records))
    (line,) = verdict["conditions"]
    assert (verdict["candidates"], line["candidates"]) == (2, 2)
    assert line["better"] == line["better_corrected"] == ["npo, ρ 0.7"]
    assert line["worse_than_sft"] == ["forget, t_max 0.25, ρ 0.7"]
    assert line["ignore_better"] == ["ignore, ρ 0.7"]


def test_a_gain_that_is_gone_when_all_settings_are_counted_is_not_called_corrected() -> None:
    rights = {**PUBLISHED, "npo": 58, "ignore": 51}
    (line,) = judge(tabulate([record(seed, rights) for seed in SEEDS]))["conditions"]
    assert line["better"] == ["npo, ρ 0.7"] and line["better_corrected"] == ["npo, ρ 0.7"]
    rights["npo"] = 52
    (line,) = judge(tabulate([record(seed, rights) for seed in SEEDS]))["conditions"]
    assert not line["better"]


def test_the_page_and_the_plot_show_every_setting(records: list[dict[str, Any]], tmp_path: Path) -> None:
    conditions = tabulate(records)
    made = {
        "date": "2026-01-01",
        "command": "c",
        "git_commit": "abc",
        "machine": "m",
        "python": "3",
        "libraries": {},
    }
    study = {"made": made, "runs": 3, "runs_in_all": 9, "seeds": [1, 2, 3], "conditions": conditions}
    page = markdown({**study, "verdict": judge(conditions)}, "study.svg")
    assert "| npo | 0.7 | 0.720 ± 0.006 | **+0.400 [" in page
    assert "| 2.00 → 1.00 | 3.00 → 9.00 | 0.71 0.72 0.73 |" in page
    assert "3 of 9 runs" in page

    plot(conditions, tmp_path / "study.svg")
    drawn = (tmp_path / "study.svg").read_text(encoding="utf-8")
    for name in PUBLISHED:
        assert name in drawn
    plot(conditions, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == drawn
