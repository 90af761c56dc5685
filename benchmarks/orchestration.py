"""What the command line costs beside the steps: a run in which all is cached, a change of ρ, `plan` and `--help`.

Every command is a process of its own with a state directory of its own, as a user starts it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.rows import Row, at_most
from benchmarks.timing import take_turns

PROJECT = Path(__file__).resolve().parent.parent
FORGETTING = "from flows.cli import main; main()"
HEAVY = "torch"
ASKED_HEAVY = f"import sys\ntry:\n    {FORGETTING}\nfinally:\n    print({HEAVY!r} in sys.modules, file=sys.stderr)"
RECIPE = "nano"
EPOCHS = {True: 40, False: 300}
"""Of the fine-tunes that a change of ρ makes run again: half a minute each, so that they are what the run is about;
seconds where it is to be quick."""
ROUNDS = {True: 2, False: 5}


def measure(quick: bool) -> list[Row]:
    """The rows of orchestration."""
    with TemporaryDirectory() as folder:
        return list(_rows(Path(folder), quick))


def _rows(folder: Path, quick: bool) -> Iterator[Row]:
    ours, plain = _environment(folder / "ours"), _environment(folder / "plain")
    run = _python(ours, "-c", FORGETTING, "run", RECIPE)
    run()
    times = take_turns({"ours": run, "empty": _python(plain, "-m", "benchmarks.empty_flow")}, rounds=ROUNDS[quick])
    note = f"{times.median('ours'):.1f} s to {times.median('empty'):.1f} s"
    what = f"`forgetting run {RECIPE}`, all cached"
    yield at_most(what, times.ratio("ours", to="empty"), "× an empty flow of 7 tasks", 1.5, note)
    yield from _commands(ours)
    yield from _after_a_change(ours, times.median("ours"), quick)


def _commands(environment: dict[str, str]) -> Iterator[Row]:
    for arguments, seconds in ((["--help"], 0.4), (["plan", RECIPE], 2.0)):
        times = take_turns({"": _python(environment, "-c", FORGETTING, *arguments)}, rounds=5)
        yield at_most(f"`forgetting {' '.join(arguments)}`", times.best(""), "s", seconds, "best of 5")
    said = _python(environment, "-c", ASKED_HEAVY, "plan", RECIPE)()
    imported = said.stderr.splitlines()[-1] == str(True)
    yield Row(f"{HEAVY} imported by `forgetting plan`", imported, "times", "0", not imported)


def _after_a_change(environment: dict[str, str], cached: float, quick: bool) -> Iterator[Row]:
    """The run after a change of ρ alone, as far as what has to run goes; the fine-tunes are made long as well.

    What a run takes with all `cached` (seconds) is a tenth only of steps that take minutes, too long to be quick.
    """
    change = ["--set", "partition.rho=0.5", "--set", f"forget.epochs={EPOCHS[quick]}"]
    started = time.perf_counter()
    steps = json.loads(_python(environment, "-c", FORGETTING, "run", RECIPE, *change, "--json")().stdout)["steps"]
    wall = time.perf_counter() - started
    ran = {label: step["seconds"] for label, step in steps.items() if step["state"] == "ran"}
    note = f"{wall:.1f} s; {', '.join(f'{label} {seconds:.1f} s' for label, seconds in ran.items())}"
    steps_took, rest = sum(ran.values()), wall - cached
    if not quick:
        yield at_most("after a change of ρ", wall / steps_took, "× the steps that had to run", 1.1, note)
    what = "after a change of ρ, without what a run takes with all cached"
    yield at_most(what, rest / steps_took, "× the steps that had to run", 1.1, note)


def _environment(state: Path) -> dict[str, str]:
    """That of a user without settings, and what keeps Prefect off the network and patient on a busy machine."""
    ours = ("FORGETTING_", "PREFECT_", "MLFLOW_", "AWS_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **inherited,
        "FORGETTING_STATE_DIR": str(state),
        "PREFECT_HOME": f"{state}-prefect",  # in a folder that is there: Prefect makes only the last one
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _python(environment: dict[str, str], *arguments: str) -> Callable[[], "subprocess.CompletedProcess[str]"]:
    """A command to be called; `RuntimeError` with its output when it fails."""

    def call() -> "subprocess.CompletedProcess[str]":
        settings: dict[str, Any] = {"env": environment, "cwd": PROJECT, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, *arguments], check=False, **settings)
        if done.returncode:
            raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    return call
