"""A store with many commits: how long `plan`, `artifacts ls` and a step that is in the store take in it."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from benchmarks.rows import Row, at_most, reported
from benchmarks.timing import take_turns
from flows.dag import SPECS
from forgetting_core.config import Recipe, SyntheticConfig
from infra.fingerprint import step_payload
from infra.store import Store, open_store
from tasks.context import CURRENT
from tasks.step import run_step
from tests.racing import call, open_context
from tests.stores import commit_of

PROJECT = Path(__file__).resolve().parents[2]
FORGETTING = [sys.executable, "-c", "from flows.cli import main; main()"]
COMMITS = {True: 10_000, False: 100_000}
WRITERS = 8
ROUNDS = 3
SECONDS = 2.0
RECIPE = "nano"


def measure_big_store(folder: Path, quick: bool) -> Iterator[Row]:
    """The rows; the store is written below `folder`."""
    count, root = COMMITS[quick], folder / "store"
    started = time.perf_counter()
    fill(open_store(str(root)), count, folder / "artifact")
    many = f"{count:,} commits".replace(",", " ")
    note = f"{(time.perf_counter() - started) / count * 1000:.2f} ms each, {WRITERS} at a time"
    yield reported(f"writing {many} into a folder", time.perf_counter() - started, "s", note)
    environment = {**os.environ, "FORGETTING_STATE_DIR": str(folder), "PYTHONPATH": str(PROJECT)}

    def command(*arguments: str) -> None:
        subprocess.run(
            [*FORGETTING, *arguments], env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=True
        )

    times = take_turns(
        {
            "plan": lambda: command("plan", RECIPE),
            "artifacts ls": lambda: command("artifacts", "ls"),
            "artifacts ls --step": lambda: command("artifacts", "ls", "--step", "forget"),
            "--help": lambda: command("--help"),
        },
        rounds=ROUNDS,
    )
    note = f"best of {ROUNDS}; `--help` takes {times.best('--help'):.2f} s"
    for name in ("plan", "artifacts ls", "artifacts ls --step"):
        yield at_most(f"`forgetting {name}` among {many}", times.best(name), "s", SECONDS, note)
    yield at_most(f"a step that is in the store, among {many}", _hit_seconds(root, folder), "s", SECONDS)


def fill(store: Store, count: int, folder: Path) -> None:
    """So many commits of every kind of step, by the store's own hand; each kind has one artifact."""
    folder.mkdir()
    (folder / "data.bin").write_bytes(b"the same for all")
    artifacts = {step: store.publish(step, folder) for step in SPECS}
    config = {name: Recipe(name="load", synthetic=SyntheticConfig()).model_dump(mode="json") for name in SPECS}

    def commit(number: int) -> None:
        step = list(SPECS)[number % len(SPECS)]
        payload = step_payload(step, 1, {**config[step], "seed": number}, {})
        provenance = {"label": step, "host": uuid.uuid4().hex, "seconds": 1.0}
        store.commit(commit_of(artifacts[step], store.root, payload, provenance=provenance))

    numbers = iter(range(count))
    with ThreadPoolExecutor(WRITERS) as pool:
        while some := list(islice(numbers, 1000)):
            list(pool.map(commit, some))


def _hit_seconds(root: Path, folder: Path) -> float:
    """From asking for a step to having its result, once it was computed; the run's record included."""
    traces = folder / "traces"
    context, _ = open_context(str(root), folder / "work")
    token = CURRENT.set(context)
    try:
        run_step(call(traces), {})
        context, _ = open_context(str(root), folder / "work")
        CURRENT.set(context)
        started = time.perf_counter()
        result = run_step(call(traces), {})
        seconds = time.perf_counter() - started
    finally:
        CURRENT.reset(token)
    assert result.state == "cached", result
    return seconds
