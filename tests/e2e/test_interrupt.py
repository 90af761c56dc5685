"""Ctrl-C: what is done is kept, training is saved, and the same command goes on from there."""

import os
import signal
import time
from pathlib import Path

from mlflow import MlflowClient

from tests.cli import Cli, states
from tests.curves import assert_mlflow_has_the_stored_curves

ARGUMENTS = (
    "run",
    "nano",
    "--set",
    "forget.epochs=150",
    "--set",
    "baselines=[]",
    "--set",
    "evaluate.tasks=[]",
)
SECONDS_TO_REACH_TRAINING = 180


def training_lines(state_dir: Path) -> int:
    """Optimizer steps that the forgetting fine-tune has done so far."""
    spools = list(state_dir.glob("work/steps/forget-*/work/metrics.jsonl"))
    return sum(len(path.read_text().splitlines()) for path in spools)


def test_an_interrupted_run_says_how_to_continue_and_does(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "state")
    process = cli.start(*ARGUMENTS)
    deadline = time.monotonic() + SECONDS_TO_REACH_TRAINING
    while training_lines(cli.state_dir) < 20:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "error: forget: interrupted" in err
    assert "forgetting run nano --set forget.epochs=150" in err
    assert "Traceback" not in err

    again = cli.run(*ARGUMENTS)
    assert "forget: resumed after optimizer step" in again.stderr
    assert "score[base]: cached" in again.stderr
    document = cli.json(*ARGUMENTS)
    assert set(states(document).values()) == {"cached"}
    client = MlflowClient(f"sqlite:///{cli.state_dir / 'mlflow.db'}")
    assert_mlflow_has_the_stored_curves(client, document["steps"]["forget"], "forget")
