"""Every bad input of the table is told in words, and the good one is taken."""

from pathlib import Path

import pytest

from benchmarks.input_faults.case import Case, write_recipe
from benchmarks.input_faults.measure import GROUPS, cases
from benchmarks.input_faults.meeting import lost, meet, run
from benchmarks.input_faults.stores import CASES as STORES

CASES = [pytest.param(case, id=f"{group}: {case}") for group in GROUPS for case in cases(group) if not case.slow]


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_told(case: Case, tmp_path: Path) -> None:
    assert not (wrong := lost(case.says, meet(case, tmp_path))), wrong


def test_the_input_that_the_cases_spoil_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(tmp_path)
    assert (tmp_path / "steps" / "forget" / "output" / "model.safetensors").exists()


def test_each_case_has_a_name_of_its_own() -> None:
    names = [*(f"{group}: {case}" for group in GROUPS for case in cases(group)), *map(str, STORES)]
    assert len(names) == len(set(names)) >= 60


def test_silence_and_half_a_message_are_losses() -> None:
    assert lost(("field",), None) == "accepted in silence"
    assert "'next'" in (lost(("field", "next"), "the field is wrong") or "")
    assert lost(("field",), "the field is wrong") is None
