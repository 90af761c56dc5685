import hashlib
import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from infra.lineage import CURRENT_ALIAS, Lineage, Produced
from tests.mlflow_server import MlflowServer

SECRET = "hunter2SECRET"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-server")).start()
    yield server
    server.kill()


def produced(name, kind, path):
    return Produced(name, kind, str(path), hashlib.sha256(str(path).encode()).hexdigest())


def record(server, store, **cached):
    """A small pipeline with a 1 MB checkpoint in `store`; returns the recorder and the training run's id."""
    checkpoint = store / "checkpoint.safetensors"
    checkpoint.write_bytes(b"\x5a" * 1_000_000)
    # user and password in the server's own address too
    uri = server.uri.replace("http://", f"http://user:{SECRET}@")
    lineage = Lineage.start(uri, experiment="forgetting", recipe="smollm2", variant="ρ=0.7", params={"rho": "0.7"})
    train = produced("train", "data", f"s3://AK:{SECRET}@bucket/train")
    model = produced("checkpoint", "model", checkpoint)
    lineage.step("split", outputs=[train])
    forget = lineage.start_step("forget", inputs=[train], **cached)
    lineage.finish_step(forget, outputs=[model], metrics={"train/loss": 1.5, "train/grad_norm": float("inf")})
    lineage.finish("FINISHED", metrics={"skills/acc": 0.5}, final_model=model, model_tags={"rho": "0.7"})
    assert lineage.degraded is None
    return lineage, forget


def test_run_is_walked_back_from_the_registered_model(server, tmp_path, capfd):
    first, forget = record(server, tmp_path)
    second, cached = record(server, tmp_path, cached=True, producer_run_id=forget)
    assert capfd.readouterr().out == ""
    client = MlflowClient(server.uri, registry_uri=server.uri)

    (version,) = client.search_model_versions("name = 'smollm2'")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert version.tags["digest"] == model.tags["digest"]
    assert version.tags["rho"] == "0.7"
    assert client.get_model_version_by_alias("smollm2", CURRENT_ALIAS).version == version.version
    assert model.source_run_id == forget
    run = client.get_run(forget)
    assert run.data.tags["mlflow.parentRunId"] == first.run_id
    assert run.data.metrics == {"train/loss": 1.5}
    assert run.data.tags["nonfinite_metrics_skipped"] == "1"
    (logged,) = run.inputs.dataset_inputs
    assert json.loads(logged.dataset.source) == {"uri": "s3://bucket/train"}
    tags = {tag.key: tag.value for tag in logged.tags}
    assert tags["digest"].startswith(logged.dataset.digest)
    assert client.get_run(tags["producer_run_id"]).info.run_name == "split"

    for run_id in (second.run_id, cached):
        assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model.model_id]
    assert client.get_run(cached).data.tags["cache"] == "hit"
    assert f"runs/{forget}" in client.get_run(cached).data.tags["mlflow.note.content"]
    assert client.get_run(first.run_id).data.metrics == {"skills/acc": 0.5}
    link = f"{server.uri}/#/experiments/{first.experiment_id}/runs/{first.run_id}?workflowType=machine_learning"
    assert first.ui_command() == link

    files = [path for path in server.artifacts.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"lineage.json"}
    with sqlite3.connect(server.database) as database:
        texts = ["\n".join(database.iterdump()), *(path.read_text() for path in files)]
    assert not [text for text in texts if SECRET in text]


def test_threads_record_steps_through_the_server_at_once(server):
    lineage = Lineage.start(server.uri, experiment="forgetting", recipe="threads")
    model = produced("checkpoint", "model", "/models/raced")

    def work(number):
        return lineage.step(f"score[{number}]", inputs=[model], outputs=[model], metrics={"loss": number})

    with ThreadPoolExecutor(4) as pool:
        run_ids = list(pool.map(work, range(4)))
    lineage.finish("FINISHED")
    assert lineage.degraded is None
    client = MlflowClient(server.uri, registry_uri=server.uri)
    assert [client.get_run(run_id).data.metrics["loss"] for run_id in run_ids] == [0, 1, 2, 3]
    assert len(client.search_logged_models([lineage.experiment_id], f"tags.digest = '{model.digest}'")) == 1


# stays last: the server is gone afterwards
@pytest.mark.timeout(120)
def test_server_killed_in_mid_run_degrades_and_the_run_goes_on(server, caplog):
    lineage = Lineage.start(
        server.uri.replace("http://", f"http://user:{SECRET}@"), experiment="forgetting", recipe="killed"
    )
    run_id = lineage.start_step("forget")
    server.kill()
    with caplog.at_level(logging.WARNING, logger="infra.lineage_outage"):
        lineage.finish_step(run_id, outputs=[produced("checkpoint", "model", "/models/c")])
        assert lineage.start_step("evaluate[forget]") is None
        lineage.finish("FAILED", summary={"error": "x"})
    assert lineage.degraded is not None
    assert SECRET not in lineage.degraded
    assert len([entry for entry in caplog.records if entry.name == "infra.lineage_outage"]) == 1
    assert SECRET not in caplog.text

    later = Lineage.start(server.uri, experiment="forgetting", recipe="killed")
    assert later.run_id is None
    assert later.degraded is not None
    assert later.ui_command() == f"{server.uri}/"
