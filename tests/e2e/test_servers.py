"""The main job on real servers: S3 with credentials, MLflow over HTTP; then again from another state directory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.cli import Cli, ran, states
from tests.mlflow_server import MlflowServer
from tests.oracle import SHARED
from tests.seaweedfs import BUCKET, SeaweedFS

SMOLLM2_TOOL = SHARED / "tools" / "smollm2.py"


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow")).start()
    yield server
    server.kill()


def exercise(
    arguments: list[str], prefix: str, s3: SeaweedFS, server: MlflowServer, folder: Path
) -> list[dict[str, Any]]:
    """Run, run again on another machine's state directory, change ρ; the three documents."""
    environment = {
        **s3.environment(),
        "MLFLOW_TRACKING_URI": server.uri,
        "FORGETTING_STORE": f"s3://{BUCKET}/{prefix}",
    }
    here, there = Cli(folder / "here" / "state", environment), Cli(folder / "there" / "state", environment)
    for cli in (here, there):
        cli.state_dir.parent.mkdir()
    documents = [here.json("run", *arguments), there.json("run", *arguments)]
    documents.append(there.json("run", *arguments, "--set", "partition.rho=0.5"))
    first, second, third = documents
    assert set(states(first).values()) == {"ran"}
    assert set(states(second).values()) == {"cached"}
    evaluated = {step for step in states(third) if step.startswith(("evaluate[forget,", "evaluate[ignore,"))}
    labelled = {"partition", "forget", "report"} | evaluated
    assert ran(third) == labelled | ({"forget[ignore]"} & states(third).keys())
    assert all(step["uri"].startswith(f"s3://{BUCKET}/{prefix}/v1/data/") for step in first["steps"].values())
    check_lineage(first, server)
    return documents


def check_lineage(document: dict[str, Any], server: MlflowServer) -> None:
    """A pipeline run, a child per step, data sets with S3 sources, models whose bytes are elsewhere."""
    client = MlflowClient(server.uri)
    pipeline = client.get_run(document["mlflow_run_id"])
    children = client.search_runs(
        [pipeline.info.experiment_id], f"tags.`mlflow.parentRunId` = '{pipeline.info.run_id}'", max_results=100
    )
    by_step = {run.data.tags["step"]: run for run in children}
    assert by_step.keys() == document["steps"].keys()
    datasets = [item.dataset for item in by_step["score[reference]"].inputs.dataset_inputs]
    assert any(json.loads(item.source)["uri"].startswith("s3://") and item.digest for item in datasets)
    for step in ("reference", "forget"):
        (model,) = [client.get_logged_model(out.model_id) for out in by_step[step].outputs.model_outputs]
        assert document["steps"][step]["uri"] in {**model.tags, **model.params}.values()
        assert document["steps"][step]["digest"] in {**model.tags, **model.params}.values()
    weights = [path for path in server.artifacts.rglob("*") if path.suffix == ".safetensors"]
    assert not weights


def test_nano_on_servers(s3: SeaweedFS, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    exercise(["nano"], "nano", s3, mlflow_server, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SMOLLM2_TOOL.is_file(), reason="../shared is not beside this checkout")
def test_a_real_model_on_real_data_on_servers(s3: SeaweedFS, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    model = tmp_path / "smollm2"
    subprocess.run([sys.executable, str(SMOLLM2_TOOL), str(model)], check=True, stdout=subprocess.DEVNULL)
    changes = {
        "model.path": str(model),
        "data.train": f"[{SHARED / 'data' / 'instructions.jsonl.gz'}]",
        "data.max_length": "256",
        "split": "{train_rows: 64, reference_rows: 32, validation_rows: 8}",
        "evaluate": f"{{tasks: [boolq, asdiv], limit: 8, task_dir: {SHARED / 'data'}}}",
    }
    sets = [part for field, value in changes.items() for part in ("--set", f"{field}={value}")]
    documents = exercise(["smollm2", *sets], "smollm2", s3, mlflow_server, tmp_path)
    for index, document in enumerate(documents):
        (tmp_path / f"run-{index}.json").write_text(json.dumps(document, indent=1))
    metrics = documents[0]["metrics"]["forget"]
    assert {"boolq", "asdiv", "held_out"} <= metrics.keys()


def test_wrong_keys_fail_the_run_with_the_cause_and_compute_nothing(s3: SeaweedFS, tmp_path: Path) -> None:
    environment = {**s3.environment(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    cli = Cli(tmp_path / "state", {**environment, "FORGETTING_STORE": f"s3://{BUCKET}/nano"})
    document = cli.json("run", "nano", status=1)
    assert "AWS_SECRET_ACCESS_KEY" in document["error"] or "denied" in document["error"].lower()
    assert document["steps"] == {}
