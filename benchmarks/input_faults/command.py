"""A case as it is met by `forgetting run`, in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.input_faults.case import RECIPE, Case

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 300
WRONG_INPUT = 2
"""Exit status."""


def run_command(case: Case) -> tuple[str | None, float]:
    """What is wrong with how the command line answers to `case`, and how long it took; None when nothing is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.make(folder)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", "run", f"./{RECIPE}"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "FORGETTING_STATE_DIR": str(folder / "state")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        seconds = time.monotonic() - started
    missing = [part for part in case.says if part not in done.stderr]
    if done.returncode != WRONG_INPUT:
        return f"exit status {done.returncode}: {done.stderr[-300:]}", seconds
    if "Traceback" in done.stderr + done.stdout:
        return f"a traceback: {done.stderr[-300:]}", seconds
    if "error: " not in done.stderr or missing:
        return f"does not say {missing}: {done.stderr[-300:]}", seconds
    return None, seconds
