"""A benchmark's table: what it says, what is written, and the exit status that scripts go by."""

import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmarks import __main__ as command
from benchmarks.files import read_rows, write_results
from benchmarks.memory import MB, in_own_process
from benchmarks.rows import Row, at_least, at_most, failing, markdown_table, reported
from benchmarks.timing import Times, take_turns

ROWS = [
    at_least("speed", 3.4567, "× the plain way", 2.5, "1.2 s to 4.1 s"),
    at_most("a | b", 1234.5, "MB", 400),
    reported("agreement", 0.98, ""),
    Row("growth", 0.01, "", "≤ 0.1", True, curve=((1e4, 20.0), (1e5, 21.0))),
]


def test_a_row_holds_by_its_bound_and_a_reported_one_is_not_judged() -> None:
    assert [row.holds for row in ROWS] == [True, False, None, True]
    assert [row.what for row in failing(ROWS)] == ["a | b"]
    assert at_least("edge", 2.5, "", 2.5).holds and at_most("edge", 2.5, "", 2.5).holds


def test_the_markdown_keeps_a_bar_in_its_cell() -> None:
    lines = markdown_table(ROWS).splitlines()
    assert lines[2] == "| speed | 3.46 × the plain way | ≥ 2.5 | yes | 1.2 s to 4.1 s |"
    assert lines[3] == "| a \\| b | 1234 MB | ≤ 400 | NO |  |"


def test_the_document_says_where_and_how_and_gives_the_rows_back(tmp_path: Path) -> None:
    write_results("growth", ROWS, tmp_path, "python -m benchmarks growth", 12.3)
    document = json.loads((tmp_path / "growth.json").read_text())
    assert document["command"] == "python -m benchmarks growth"
    assert document["machine"]["cores"] >= 1 and document["software"]["libraries"]["torch"]
    assert read_rows(tmp_path / "growth.json") == ROWS
    assert "<svg" in (tmp_path / "growth.svg").read_text()
    assert "![Growth](growth.svg)" in (tmp_path / "growth.md").read_text()


@pytest.mark.parametrize(("rows", "status"), [(ROWS, 1), (ROWS[:1], 0)])
def test_the_exit_status_says_whether_all_rows_hold(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[Row],
    status: int,
) -> None:
    made = types.ModuleType("made_benchmark")
    made.measure = lambda quick: rows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_benchmark", made)
    monkeypatch.setitem(command.BENCHMARKS, "made", "made_benchmark")
    with pytest.raises(typer.Exit) as ended:
        command.benchmark("made", quick=True, out=tmp_path)
    assert ended.value.exit_code == status
    assert read_rows(tmp_path / "made.json") == rows
    assert "speed" in capsys.readouterr().out


def test_a_benchmark_of_all_that_fails_is_a_row_that_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "TABLE", {"no-such-benchmark": "nowhere"})
    with pytest.raises(typer.Exit) as ended:
        command.benchmark("all", quick=True, out=tmp_path)
    assert ended.value.exit_code == 1


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(typer.BadParameter, match="'speed'; expected all, scoring"):
        command.benchmark("speed")


def test_a_ratio_is_of_the_same_round() -> None:
    times = Times({"ours": [1.0, 10.0, 2.0], "plain": [3.0, 30.0, 6.0]})
    assert times.ratio("plain", to="ours") == 3 and times.median("plain") == 6


def test_contestants_take_turns() -> None:
    order: list[str] = []
    times = take_turns({"a": lambda: order.append("a"), "b": lambda: time.sleep(0.01)}, rounds=3, warm_up=2)
    assert len(order) == 5
    assert len(times.seconds["a"]) == len(times.seconds["b"]) == 3
    assert times.ratio("b", to="a") > 1


kept: list[np.ndarray] = []


def fill(megabytes: int) -> int:
    return int(np.ones(megabytes * MB, dtype=np.int8).sum(dtype=np.int64))


def fill_and_keep(megabytes: int) -> int:
    kept.append(np.ones(megabytes * MB, dtype=np.int8))
    return int(kept[0].sum(dtype=np.int64))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("function, late", [(fill_and_keep, 0), (fill, MB)], ids=["kept", "given back"])
def test_the_peak_of_a_process_counts_what_it_takes_and_no_more(function: Callable[[int], int], late: int) -> None:
    """What is given back before the end, the kernel counts in batches of pages."""
    measured = in_own_process(function, 300)
    assert measured.result == 300 * MB
    assert 300 * MB - late <= measured.added <= 400 * MB


def die() -> None:
    sys.exit(3)


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="exit status 3"):
        in_own_process(die)
