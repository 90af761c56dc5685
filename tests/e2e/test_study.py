"""The controlled study as its reader starts it: the tiny grid, stopped and started, and what it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 540


def study(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    ours = ("FORGETTING_", "PREFECT_", "MLFLOW_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    places = ("--state", str(folder / "state"), "--out", str(folder / "out"))
    command = [sys.executable, "-m", "benchmarks.study", "--quick", *places, *options]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=SECONDS)


def test_the_tiny_grid_ends_in_a_table_and_its_second_start_does_nothing_again(tmp_path: Path) -> None:
    nothing = study(tmp_path, "--table")
    assert nothing.returncode == 1 and "nothing is done yet" in nothing.stdout, nothing.stderr

    first = study(tmp_path, "--jobs", "2")
    assert first.returncode == 0, first.stdout + first.stderr
    found = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    (condition,) = found["conditions"]
    assert {line["arm"] for line in condition["lines"]} == {
        *("base", "reference", "sft", "ignore", "npo"),
        *("forget, t_max 0.25", "forget, t_max 0.03"),
    }
    assert 0 < condition["detection"]["mean"] < 1
    trained = {line["arm"]: line["training"] for line in condition["lines"]}
    assert trained["npo"].keys() == {"loss_positive", "loss_negative"} and trained["base"] is None
    for name in ("study.md", "study.json", "study.svg"):
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text(encoding="utf-8")
    commits = sorted((tmp_path / "state" / "store" / "v1" / "commits").rglob("*.json"))

    second = study(tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("done before") == 2
    assert sorted((tmp_path / "state" / "store" / "v1" / "commits").rglob("*.json")) == commits
