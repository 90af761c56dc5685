"""MLflow with many runs: how long it takes to walk from a registered model back to the raw data."""

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.load.big_store import FORGETTING, PROJECT, ROUNDS, SECONDS
from benchmarks.rows import Row, at_most, reported
from benchmarks.timing import take_turns
from tests.unit.flows.lineage_world import make_world, record_run

RUNS = {True: 350, False: 5000}
MODEL = "demo"


def measure_many_runs(folder: Path, quick: bool) -> Iterator[Row]:
    """The rows; store and database are written below `folder`."""
    from flows.lineage import trace

    world = make_world(folder)
    each = len(world.commits) + 1
    pipelines = -(-RUNS[quick] // each)
    started = time.perf_counter()
    for number in range(pipelines):
        began = datetime(2026, 1, 4, 3, tzinfo=UTC) + timedelta(days=number)
        record_run(world, f"run-{number}", began, cached=True)
    seconds = time.perf_counter() - started
    many = f"{pipelines * each} runs in MLflow"
    yield reported(
        f"recording {many}", seconds, "s", f"{seconds / pipelines:.2f} s for a pipeline of {each - 1} steps"
    )
    settings = {"MLFLOW_TRACKING_URI": world.tracking_uri, "FORGETTING_STATE_DIR": str(folder / "state")}
    environment = {**os.environ, **settings, "PYTHONPATH": str(PROJECT)}

    def command() -> None:
        arguments = ["lineage", MODEL, "--store", str(world.root)]
        subprocess.run([*FORGETTING, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)

    def walk() -> None:
        assert trace(MODEL, str(world.root), check=False).outage is None

    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        times = take_turns({"walk": walk, "command": command}, rounds=ROUNDS)
    note = f"best of {ROUNDS}; the command with its imports {times.best('command'):.1f} s"
    yield at_most(f"lineage of a model, {many}", times.best("walk"), "s", SECONDS, note)
