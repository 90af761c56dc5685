"""The table of the controlled study, from records of known content."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.study.grid import full_grid
from benchmarks.study.made import made_of
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


def test_the_page_and_the_plot_show_every_setting(records: list[dict[str, Any]], tmp_path: Path) -> None:
    conditions = tabulate(records)
    page = page_of(conditions)
    assert "| npo | 0.7 | 0.720 ± 0.006 | **+0.400 [" in page
    assert "| 2.00 → 1.00 | 3.00 → 9.00 | 0.71 0.72 0.73 |" in page
    assert "3 of 9 runs" in page

    plot(conditions, tmp_path / "study.svg")
    drawn = (tmp_path / "study.svg").read_text(encoding="utf-8")
    for name in PUBLISHED:
        assert name in drawn
    plot(conditions, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == drawn


def page_of(conditions: list[dict[str, Any]]) -> str:
    study = {
        "command": "c",
        "made": made_of([{}]),
        "tiny": False,
        "runs": 3,
        "runs_in_all": 9,
        "outdated": 0,
        "seeds": [1, 2, 3],
        "conditions": conditions,
        "verdict": judge(conditions, full_grid()),
    }
    return markdown(study, "study.svg")


def test_the_page_tells_of_how_many_seeds_each_interval_is(records: list[dict[str, Any]]) -> None:
    gentle = [record(seed, {"forget, t_max 0.03": 55}, kind="gentle") for seed in SEEDS[:2]]
    page = page_of(tabulate(records + gentle))
    assert "bootstrap" not in page
    (line,) = (line for line in page.splitlines() if line.startswith("| forget, t_max 0.03 "))
    assert line.count("] 2 seeds |") + line.count("]** 2 seeds |") == 2
    (line,) = (line for line in page.splitlines() if line.startswith("| npo "))
    assert line.count("]** 3 seeds |") == 2


def test_a_single_seed_is_never_shown_as_sure(records: list[dict[str, Any]]) -> None:
    page = page_of(tabulate(records[:1]))
    assert "+0.400 [+" in page and "1 seed |" in page
    assert "**+0.400" not in page


def test_a_sentence_says_what_labels_gain_and_what_forgetting_adds(records: list[dict[str, Any]]) -> None:
    gentle = [record(seed, {"forget, t_max 0.03": 51 + seed}, kind="gentle") for seed in SEEDS[:2]]
    page = page_of(tabulate(records + gentle))
    assert (
        "- Noise 0.3, clean reference: sft 0.320, ignore at ρ 0.7 0.520 (3 seeds): the labels gain **+0.200**; "
        "forgetting on top: **-0.400** (t_max 0.25), +0.025 (t_max 0.03, 2 seeds), **+0.200** (npo).\n"
    ) in page


def test_a_sentence_compares_what_has_the_same_seeds(records: list[dict[str, Any]]) -> None:
    del records[2]["arms"]["ignore"]
    assert "sft 0.315, ignore at ρ 0.7 0.515 (2 seeds): the labels gain **+0.200**" in page_of(tabulate(records))


def test_labels_that_do_harm_are_not_said_to_gain() -> None:
    page = page_of(tabulate([record(seed, {**PUBLISHED, "ignore": 20}) for seed in SEEDS]))
    assert "the labels cost **-0.100**" in page
