"""What the controlled study says of its own table, from records of known content."""

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.study.grid import Run, full_grid, quick_grid
from benchmarks.study.table import tabulate
from benchmarks.study.verdict import judge

ITEMS = 100
SFT, IGNORE = 10, 20
"""Right answers of `ITEMS`, of every seed."""


def arm(right: int) -> dict[str, Any]:
    return {"items": [1.0] * right + [0.0] * (ITEMS - right), "asked": "questions", "training": None}


def verdict_of(npo: Sequence[int], runs: Sequence[Run], *, sft_seeds: int | None = None) -> dict[str, Any]:
    """Of a study in which npo has so many right answers, a seed each; the others have the same for all."""
    records = [
        {
            "seed": seed,
            "noise": "0.3",
            "reference": "clean",
            "rho": "0.7",
            "arms": {
                "ignore": arm(IGNORE),
                "npo": arm(right),
                **({"sft": arm(SFT)} if sft_seeds is None or seed <= sft_seeds else {}),
            },
            "detection": None,
        }
        for seed, right in enumerate(npo, start=1)
    ]
    return judge(tabulate(records), runs)


def line_of(npo: Sequence[int], runs: Sequence[Run], *, sft_seeds: int | None = None) -> dict[str, Any]:
    (line,) = verdict_of(npo, runs, sft_seeds=sft_seeds)["conditions"]
    return line


def test_what_beats_both_is_named() -> None:
    line = line_of([49, 50, 51, 50, 50], full_grid())
    assert line["better"] == line["better_corrected"] == ["npo, ρ 0.7"]
    assert line["ignore_better"] == ["ignore, ρ 0.7"]
    assert not line["worse_than_sft"]


def test_what_harms_is_named() -> None:
    line = line_of([1, 2, 1, 2, 1], full_grid())
    assert line["worse_than_sft"] == ["npo, ρ 0.7"]
    assert not line["better"] and not line["better_corrected"]


def test_what_beats_sft_only_is_not_better() -> None:
    assert not line_of([20, 19, 21, 20, 20], full_grid())["better"]


@pytest.mark.parametrize(
    ("gains", "better", "corrected"),
    [
        ([-2, 3, 8, 13, 18], False, False),  # 2.26 standard errors
        ([1, 5, 9, 13, 17], True, False),  # 3.18
        ([4, 8, 12, 16, 20], True, True),  # 4.24
    ],
)
def test_few_seeds_take_a_wider_correction_than_many(gains: list[int], better: bool, corrected: bool) -> None:
    """Student's t of 4 degrees of freedom: 2.78 standard errors alone, 3.96 with three candidates; normal 2.39."""
    runs = quick_grid()
    verdict = verdict_of([IGNORE + gain for gain in gains], runs)
    assert verdict["candidates"] == 3
    (line,) = verdict["conditions"]
    assert line["better"] == ["npo, ρ 0.7"] * better
    assert line["better_corrected"] == ["npo, ρ 0.7"] * corrected


def test_settings_that_are_not_done_yet_are_corrected_for() -> None:
    gains = [4, 8, 12, 16, 20]
    verdict = verdict_of([IGNORE + gain for gain in gains], full_grid())
    assert verdict["candidates"] == 7 * 4 * 3  # noise and reference, ρ, ways to forget
    (line,) = verdict["conditions"]
    assert line["better"] and not line["better_corrected"]


def test_two_seeds_are_too_few_to_be_judged() -> None:
    line = line_of([50, 50], full_grid())
    assert (line["judged"], line["seeds"]) == (0, [])
    assert not line["better"] and not line["ignore_better"]
    line = line_of([1, 1, 1, 1], full_grid(), sft_seeds=2)
    assert line["judged"] == 0 and not line["worse_than_sft"]
    line = line_of([50, 50, 50], full_grid())
    assert (line["judged"], line["seeds"]) == (1, [3])
