"""MLflow goes away in mid-training: the training does not notice, and afterwards every point is there."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.cli import Cli
from tests.curves import assert_mlflow_has_the_stored_curves, stored_curves
from tests.mlflow_server import MlflowServer

ARGUMENTS = (
    "run",
    "nano",
    "--set",
    "forget.epochs=60",
    "--set",
    "baselines=[]",
    "--set",
    "evaluate.tasks=[]",
)
SECONDS_TO_REACH_TRAINING = 180


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "server").start()
    yield server
    server.kill()


def steps_done(state_dir: Path) -> int:
    """Optimizer steps that the forgetting fine-tune has done so far."""
    spools = list(state_dir.glob("work/steps/forget-*/work/metrics.jsonl"))
    return sum(len(path.read_text().splitlines()) for path in spools)


def connected(process: psutil.Process, port: int) -> bool:
    return any(connection.raddr and connection.raddr.port == port for connection in process.net_connections())


@pytest.mark.slow
@pytest.mark.parametrize("outage", ["killed", "hanging"])
def test_training_finishes_without_mlflow_and_the_next_run_tells_it_everything(
    server: MlflowServer, tmp_path: Path, outage: str
) -> None:
    cli = Cli(tmp_path / "state", {"MLFLOW_TRACKING_URI": server.uri})
    process = cli.start(*ARGUMENTS, "--json")
    deadline = time.monotonic() + SECONDS_TO_REACH_TRAINING
    while steps_done(cli.state_dir) < 20:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    # that no step waits for MLflow: whoever computes has no connection to it
    children = psutil.Process(process.pid).children(recursive=True)
    assert children and not [child for child in children if connected(child, server.port)]
    server.kill() if outage == "killed" else server.pause()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert re.search(r"the curves of \d+ steps are not in MLflow", err)
    assert "shows this run as running" in err
    document = json.loads(out)
    steps = document["steps"]
    assert len(stored_curves(Path(steps["forget"]["uri"]))["train/loss_negative"]) > 400

    server.start() if outage == "killed" else server.resume()
    assert {step["state"] for step in cli.json(*ARGUMENTS)["steps"].values()} == {"cached"}
    client = MlflowClient(server.uri)
    for label in ("reference", "forget"):
        pipeline = assert_mlflow_has_the_stored_curves(client, steps[label], label)
        assert pipeline.info.run_id == document["mlflow_run_id"]
        assert pipeline.info.status == "FINISHED"
        assert "lineage_incomplete" in pipeline.data.tags
    assert not client.search_runs([pipeline.info.experiment_id], "attributes.status = 'RUNNING'")
    assert not list(cli.state_dir.glob("curves/*/*"))
