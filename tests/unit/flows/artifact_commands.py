"""`forgetting artifacts` on a small store, as fixtures."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main
from infra.commits import Commit
from infra.store import Store, open_store
from tests.cli import Result
from tests.stores import make_step, write_files

Command = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def artifacts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("FORGETTING_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Result:
        command = ["forgetting", "artifacts", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", [*command, "--store", store.root])
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        return Result(int(exited.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "out", {"train/0.parquet": b"rows", "aux/times.json": b"12:00"})


@pytest.fixture
def chain(store: Store, folder: Path) -> tuple[Commit, Commit]:
    """A split of a run, and a score of it that no run has used."""
    split = make_step(store, folder, "split")
    return split, make_step(store, folder, "score", {"data": split}, label="score[base]")
