"""What the study keeps of its runs, what its table says of who made them, and where its command writes."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import benchmarks.study.__main__ as command
from benchmarks.study.grid import CLEAN, Kind, Run, quick_grid
from benchmarks.study.made import made_of
from benchmarks.study.records import is_current, losses_of, read_record, write_record
from benchmarks.study.results import write_results
from flows.outcome import Outcome

NOTHING_TRAINED = Run(1, "0.3", CLEAN, "0.7", Kind("nothing", {}))
MADE = {
    "date": "2026-01-05",
    "git_commit": "abc",
    "git_dirty": False,
    "python": "3.11.9",
    "libraries": {"torch": "2.7"},
    "machine": "Linux x86_64 (AVX2), 2 CPU cores",
}


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(command.study)
    return app


def write_old_records(state: Path) -> None:
    """As they were before they kept what they were made by, and by another version of the steps."""
    (state / "records").mkdir(parents=True)
    for run in quick_grid():
        arms = {
            arm.name: {"items": [1.0, 0.0], "asked": "questions", "training": None}
            for arm in run.kind.arms.values()
        }
        record = {
            "key": "of another version",
            "seed": run.seed,
            "noise": run.noise,
            "reference": run.reference,
            "rho": run.rho,
            "kind": run.kind.name,
            "arms": arms,
            "detection": None,
        }
        (state / "records" / f"{run.name}-tiny.json").write_text(json.dumps(record), encoding="utf-8")


def test_a_record_says_by_what_it_was_made_but_not_where(tmp_path: Path) -> None:
    write_record(NOTHING_TRAINED, Outcome("", None, ""), tmp_path)
    record = read_record(NOTHING_TRAINED, tmp_path)
    assert record is not None and is_current(record, NOTHING_TRAINED)
    made = record["made"]
    assert made.keys() == MADE.keys()
    assert made["python"] == platform.python_version()
    assert {"torch", "transformers", "lm-eval", "numpy"} == made["libraries"].keys()
    assert "cores" in made["machine"]
    assert platform.node() not in json.dumps(made) and str(Path.cwd()) not in json.dumps(made)


def test_the_table_tells_all_commits_and_the_range_of_dates() -> None:
    later = MADE | {"date": "2026-02-01", "git_commit": "def", "git_dirty": True}
    made = made_of([{"made": MADE}, {"made": later}, {"made": MADE}, {}])
    assert made["dates"] == ["2026-01-05", "2026-02-01"]
    assert made["commits"] == {"abc": 2, "def with changes": 1, "unknown": 1}
    assert made["libraries"] == {"Python 3.11.9, torch 2.7": 3, "unknown": 1}
    assert made["machines"] == {MADE["machine"]: 3, "unknown": 1}


def test_records_without_what_they_were_made_by_are_read_and_counted_as_unknown(tmp_path: Path) -> None:
    write_old_records(tmp_path)
    table = write_results(quick_grid(), tmp_path, tmp_path / "out", "c")
    assert table is not None
    page = table.read_text(encoding="utf-8")
    assert "- Made: unknown\n- Commits: unknown (2 runs)" in page
    assert "2 of them by another version of the recipe or of a step" in page


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    write_old_records(tmp_path)
    for name in ("one", "two"):
        write_results(quick_grid(), tmp_path, tmp_path / name, "c")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_losses_are_of_the_first_and_last_tenth_of_the_points_that_have_them() -> None:
    points: list[dict[str, Any]] = [{"step": step, "loss_positive": float(step)} for step in range(1, 41)]
    for point in points[20:]:
        point["loss_negative"] = float(point["step"])
    losses = losses_of("".join(json.dumps(point) + "\n" for point in points), "npo")
    assert losses == {"loss_positive": [2.5, 38.5], "loss_negative": [21.5, 39.5]}
    assert losses_of("", "npo") == {}


def test_a_quick_look_leaves_what_is_published_alone(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path / "published")
    write_old_records(tmp_path / "state")
    result = CliRunner().invoke(app, ["--quick", "--table", "--state", str(tmp_path / "state")])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "published").exists()
    page = (tmp_path / "state/quick/study.md").read_text(encoding="utf-8")
    assert "tiny model" in page and "numbers mean nothing" in page


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("1,a", "found '1,a'"),
        ("", "found ''"),
        ("-1", "found '-1'"),
        ("1,2,1", "each seed once; 1 comes more often"),
    ],
)
def test_seeds_that_make_no_sense_are_told(app: typer.Typer, tmp_path: Path, seeds: str, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        command.study(seeds=seeds, table=True, state=tmp_path)
    result = CliRunner().invoke(app, ["--table", "--state", str(tmp_path), f"--seeds={seeds}"])
    assert result.exit_code == 2
    assert "--seeds" in result.output
