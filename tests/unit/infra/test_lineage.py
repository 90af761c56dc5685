import json
import logging
import multiprocessing
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from infra.lineage import CURRENT_ALIAS, Lineage, Produced
from infra.programs import program
from tests.lineage import produced, sha, start

NOTE = "mlflow.note.content"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="session")
def uri(folder):
    return f"sqlite:///{folder}/state/mlflow.db"


@pytest.fixture(scope="session")
def client(uri):
    return MlflowClient(uri, registry_uri=uri)


def test_pipeline_run_and_steps_form_a_tree_in_one_experiment(uri, client):
    lineage = start(uri, params={"partition.rho": "0.7", "reference.model": None}, tags={"flow_run_id": "abc"})
    train = produced("train")
    split = lineage.step("split", outputs=[train], seconds=2.0, metrics={"rows": 10})
    partition = lineage.step("partition", inputs=[train], fingerprint="ff", params={"rho": "0.7"})
    lineage.finish("FINISHED", metrics={"skills/acc": 0.5})

    run = client.get_run(lineage.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "forgetting"
    assert run.info.run_name.startswith("smollm2 ρ=0.7 · ")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"partition.rho": "0.7"}
    assert run.data.metrics == {"skills/acc": 0.5}
    assert run.data.tags["flow_run_id"] == "abc"
    children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{lineage.run_id}'")
    assert {child.info.run_id: child.info.run_name for child in children} == {
        split: "split",
        partition: "partition",
    }
    for child in children:
        assert child.data.tags["cache"] == "miss"
    assert client.get_run(split).data.metrics == {"rows": 10, "seconds": 2.0}
    assert client.get_run(partition).data.tags["fingerprint"] == "ff"


def test_inputs_are_datasets_with_place_digest_and_producer(uri, client):
    lineage = start(uri)
    losses, raw = produced("token losses", content="inputs"), produced("rows", uri="/data/rows.jsonl")
    web, hub = produced("web", uri="https://host/rows.jsonl"), produced("hub", uri="hf://datasets/a/b@c")
    score = lineage.step("score[base]", inputs=[raw, web, hub], outputs=[losses])
    partition = lineage.step("partition", inputs=[losses])

    (logged,) = client.get_run(partition).inputs.dataset_inputs
    assert logged.dataset.name == "token losses"
    assert logged.dataset.digest == losses.digest[:32]
    assert logged.dataset.source_type == "s3"
    assert json.loads(logged.dataset.source)["uri"] == losses.uri
    tags = {tag.key: tag.value for tag in logged.tags}
    assert tags == {
        "mlflow.data.context": "partition",
        "digest": losses.digest,
        "uri": losses.uri,
        "producer_run_id": score,
    }
    by_output = f"tags.`output.token losses.digest` = '{losses.digest}'"
    assert [run.info.run_id for run in client.search_runs([lineage.experiment_id], by_output)] == [score]
    sources = {i.dataset.name: i.dataset.source_type for i in client.get_run(score).inputs.dataset_inputs}
    assert sources == {"rows": "local", "web": "http", "hub": "code"}
    # what no step of the run produced is an input of the pipeline itself
    assert {i.dataset.name for i in client.get_run(lineage.run_id).inputs.dataset_inputs} == {"rows", "web", "hub"}


def test_checkpoints_are_external_models_that_a_second_run_uses_again(uri, client):
    checkpoint, base = produced("checkpoint", "model", "shared"), produced("base model", "model", uri="/models/b")

    def run(**cached):
        lineage = start(uri, "reuse")
        trained = lineage.step("reference", inputs=[base], outputs=[checkpoint], **cached)
        scored = lineage.step("score[reference]", inputs=[checkpoint])
        lineage.finish("FINISHED", final_model=checkpoint, model_tags={"rho": "0.7"})
        assert lineage.degraded is None
        return lineage, trained, scored

    first, trained, scored = run()
    second, cached, scored_again = run(cached=True, producer_run_id=trained)

    models = client.search_logged_models([first.experiment_id], f"tags.digest = '{checkpoint.digest}'")
    assert len(models) == 1
    model = models[0]
    assert model.status == "READY"
    assert model.source_run_id == trained
    assert model.params == {"digest": checkpoint.digest, "uri": checkpoint.uri}
    assert model.tags["mlflow.model.isExternal"] == "true"
    for run_id in (trained, cached, first.run_id, second.run_id):
        assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model.model_id]
    for run_id in (scored, scored_again):
        assert [item.model_id for item in client.get_run(run_id).inputs.model_inputs] == [model.model_id]
    (version,) = client.search_model_versions("name = 'reuse'")
    assert version.source == f"models:/{model.model_id}"
    assert version.tags == {
        "rho": "0.7",
        "digest": checkpoint.digest,
        "uri": checkpoint.uri,
        "model_id": model.model_id,
    }
    assert f"runs/{trained}" in version.description
    assert client.get_model_version_by_alias("reuse", CURRENT_ALIAS).version == version.version


def test_cached_step_links_to_the_run_that_produced_it(uri, client):
    train = produced("train", content="cached train")
    first = start(uri)
    producer = first.step("split", outputs=[train])
    second = start(uri)
    cached = second.step("split", outputs=[train], cached=True, producer_run_id=producer)
    consumer = second.step("score[base]", inputs=[train])

    tags = client.get_run(cached).data.tags
    assert tags["cache"] == "hit"
    assert tags["producer_run_id"] == producer
    assert tags["output.train.digest"] == train.digest
    link = f"(#/experiments/{second.experiment_id}/runs/{producer}?workflowType=machine_learning)"
    assert link in tags[NOTE]
    assert link in client.get_run(second.run_id).data.tags[NOTE]
    (logged,) = client.get_run(consumer).inputs.dataset_inputs
    assert {tag.key: tag.value for tag in logged.tags}["producer_run_id"] == producer


def test_cached_step_of_another_database_is_recorded_all_the_same(uri, client):
    lineage = start(uri)
    model = produced("checkpoint", "model", "made elsewhere")
    run_id = lineage.step("forget", outputs=[model], cached=True, producer_run_id="f" * 32)
    assert lineage.degraded is None
    tags = client.get_run(run_id).data.tags
    assert tags["cache"] == "hit"
    assert "producer_run_id" not in tags and "f" * 32 not in tags[NOTE], "a link that leads nowhere"


def test_running_step_is_visible(uri, client):
    lineage = start(uri)
    run_id = lineage.start_step("forget")
    assert client.get_run(run_id).info.status == "RUNNING"
    lineage.finish("KILLED")


def test_non_finite_values_are_counted_not_logged(uri, client):
    lineage = start(uri)
    run_id = lineage.start_step("forget")
    lineage.finish_step(run_id, metrics={"perplexity": float("inf"), "accuracy": 0.1})
    lineage.finish("FINISHED", metrics={"worst": float("nan")}, summary={"worst": float("-inf")})
    run = client.get_run(run_id)
    assert run.data.metrics == {"accuracy": 0.1}
    assert run.data.tags["nonfinite_metrics_skipped"] == "1"
    assert client.get_run(lineage.run_id).data.tags["nonfinite_metrics_skipped"] == "1"


def test_stopped_run_closes_its_open_steps_and_registers_nothing(uri, client):
    lineage = start(uri, "stopped")
    done = lineage.step("split")
    running, hit = lineage.start_step("forget"), lineage.start_step("report", cached=True)
    checkpoint = produced("checkpoint", "model", "stopped")
    lineage.finish("KILLED", final_model=checkpoint)
    lineage.finish("FINISHED")
    assert client.get_run(done).info.status == "FINISHED"
    assert client.get_run(running).info.status == client.get_run(hit).info.status == "KILLED"
    assert client.get_run(lineage.run_id).info.status == "KILLED"
    assert client.search_model_versions("name = 'stopped'") == []


def test_lineage_document_holds_the_whole_run(uri, folder, client):
    lineage = start(uri)
    train, checkpoint = produced("train", content="document"), produced("checkpoint", "model", "document model")
    split = lineage.step("split", outputs=[train], seconds=1.5)
    lineage.step("forget", inputs=[train], outputs=[checkpoint])
    lineage.finish("FINISHED", metrics={"acc": 0.5}, final_model=checkpoint, summary={"tokens": 7})
    artifact_uri = client.get_run(lineage.run_id).info.artifact_uri
    assert artifact_uri.startswith((folder / "state").as_uri())
    document = json.loads(load_text(f"{artifact_uri}/lineage.json"))
    assert [step["step"] for step in document["steps"]] == ["split", "forget"]
    assert document["steps"][0]["seconds"] == 1.5
    assert document["steps"][1]["inputs"][0] == {
        "name": "train",
        "kind": "data",
        "uri": train.uri,
        "digest": train.digest,
        "producer_run_id": split,
    }
    assert document["final_model"]["digest"] == checkpoint.digest
    assert document["metrics"] == {"acc": 0.5}
    assert document["summary"] == {"tokens": 7}


def test_secrets_in_uris_reach_no_record(uri, folder):
    secret = "hunter2SECRET"
    lineage = start(
        uri,
        "secrets",
        params={"store": f"s3://AKIA:{secret}/x@bucket/p", "note": f"see https://h/x?X-Amz-Signature={secret}, ok"},
        tags={"link": f"https://user:{secret}@host/flow"},
    )
    train = produced("train", content="s", uri=f"s3://AKIA:{secret}@bucket/train")
    signed = produced("rows", content="r", uri=f"https://host/rows.jsonl?sig={secret}#{secret}")
    model = produced("checkpoint", "model", "m", uri=f"https://u:{secret}@host/ck?token={secret}")
    run_id = lineage.start_step("split", inputs=[signed, model], params={"from": signed.uri})
    lineage.finish_step(run_id, outputs=[train, model], tags={"at": train.uri})
    lineage.finish("FINISHED", final_model=model, model_tags={"at": model.uri}, summary={"a": [train.uri]})
    assert lineage.degraded is None

    with sqlite3.connect(folder / "state" / "mlflow.db") as database:
        dump = "\n".join(database.iterdump())
    files = [path for path in (folder / "state" / "mlartifacts").rglob("*") if path.is_file()]
    texts = [dump, *(path.read_text() for path in files)]
    assert files
    assert "https://host/rows.jsonl" in dump
    assert not [text for text in texts if secret in text]


def test_concurrent_steps_are_all_recorded(uri, client):
    lineage = start(uri)
    checkpoint = produced("checkpoint", "model", "raced")

    def work(number):
        run_id = lineage.start_step(f"score[{number}]", inputs=[produced(f"part {number}")])
        lineage.finish_step(run_id, outputs=[checkpoint, produced(f"losses {number}")])
        return run_id

    with ThreadPoolExecutor(4) as pool:
        run_ids = list(pool.map(work, range(8)))
    lineage.finish("FINISHED")
    assert lineage.degraded is None
    for number, run_id in enumerate(run_ids):
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert [item.dataset.name for item in run.inputs.dataset_inputs] == [f"part {number}"]
        assert f"losses {number}" in client.get_run(lineage.run_id).data.tags[NOTE]
    assert len(client.search_logged_models([lineage.experiment_id], f"tags.digest = '{checkpoint.digest}'")) == 1


def _start_in_process(uri):
    return Lineage.start(uri, experiment="forgetting", recipe="many").degraded


def test_processes_that_start_on_a_fresh_database_together_all_succeed(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_start_in_process, [uri] * 3) == [None] * 3
    client = MlflowClient(uri, registry_uri=uri)
    assert [e.name for e in client.search_experiments(filter_string="name != 'Default'")] == ["forgetting"]


def test_database_that_cannot_be_used_degrades_with_one_warning(tmp_path, caplog):
    (tmp_path / "mlflow.db").write_text("this is no database" * 100)
    with caplog.at_level(logging.WARNING):
        lineage = Lineage.start(f"sqlite:///{tmp_path}/mlflow.db", experiment="forgetting", recipe="r")
        run_id = lineage.start_step("split")
        lineage.finish_step(run_id, outputs=[produced("train")])
        lineage.finish("FINISHED")
    assert (lineage.run_id, run_id) == (None, None)
    assert "not a database" in lineage.degraded
    assert len([record for record in caplog.records if record.name == "infra.lineage_outage"]) == 1
    assert "mlflow ui" in lineage.ui_command()


def test_server_that_never_answers_degrades_within_the_users_own_timeout(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        lineage = Lineage.start(f"http://127.0.0.1:{port}", experiment="forgetting", recipe="r")
    assert lineage.run_id is None
    assert "timed out" in lineage.degraded.lower() or "timeout" in lineage.degraded.lower()


def test_outdated_database_is_migrated_and_kept_beside(tmp_path, uri, folder):
    start(uri)
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(folder / "state" / "mlflow.db") as source, sqlite3.connect(path) as target:
        source.backup(target)
    script = (
        "import sys; from alembic import command; from mlflow.store.db.utils import _get_alembic_config as c;"
        "command.downgrade(c(sys.argv[1]), '-1')"
    )
    done = subprocess.run([sys.executable, "-c", script, f"sqlite:///{path}"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this MLflow's latest migration cannot be undone: {done.stderr[-200:]}")
    assert start(f"sqlite:///{path}").run_id
    assert path.with_name("mlflow.db.before-upgrade").exists()


def test_mistakes_of_the_caller_are_raised(uri):
    lineage = start(uri)
    with pytest.raises(TypeError):
        lineage.step("split", metrics={"rows": None})
    with pytest.raises(KeyError):
        lineage.finish_step("no such run")
    with pytest.raises(ValueError, match="64 hex digits"):
        Produced("train", "data", "s3://b/k", "abc")
    assert lineage.degraded is None


def test_importing_the_recorder_does_not_import_mlflow():
    script = "import sys, infra.lineage; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3]).returncode == 0


def test_recording_leaves_the_process_settings_and_stdout_alone(uri, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    lineage = start(uri, "settings")
    checkpoint = produced("checkpoint", "model", "settings")
    lineage.step("forget", outputs=[checkpoint])
    lineage.finish("FINISHED", final_model=checkpoint)
    import mlflow

    assert lineage.degraded is None
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:1"
    assert capfd.readouterr().out == ""


def test_ui_command_opens_the_run(uri):
    lineage = start(uri)
    link = f"http://127.0.0.1:5000/#/experiments/{lineage.experiment_id}/runs/{lineage.run_id}"
    assert lineage.ui_command() == (
        f"{program('mlflow')} ui --backend-store-uri {uri} --port 5000"
        f"  # then open {link}?workflowType=machine_learning"
    )


def test_long_values_say_that_they_are_cut(uri, client):
    lineage = start(uri, params={"sources": "a" * 7000}, tags={"list": "b" * 9000})
    run = client.get_run(lineage.run_id)
    assert run.data.params["sources"].endswith("… (7000 characters)")
    assert run.data.tags["list"].endswith("… (9000 characters)")


def test_hostile_names_stay_text_in_the_tables(uri, client):
    lineage = start(uri)
    hostile = produced("a|b <script>alert(1)</script> [x](y)\n# z", content="hostile", uri="s3://b/<img src=x>|`q`")
    run_id = lineage.step("split", inputs=[hostile], outputs=[hostile], tags={"odd=key?": 1})
    assert lineage.degraded is None
    for run in (run_id, lineage.run_id):
        note = client.get_run(run).data.tags[NOTE]
        assert "<" not in note
        assert "[x](y)" not in note
        widths = {line.replace("\\|", "").count("|") for line in note.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_model_leads_back_to_the_raw_file_and_its_own_sha256(uri, client):
    lineage = start(uri, "walked")
    raw = Produced("train", "data", "/data/rows.jsonl", sha("listing"), (("/data/rows.jsonl", sha("bytes")),))
    base = produced("base", "model", "walked base", "/models/b")
    train, trained = produced("train", content="walked train"), produced("checkpoint", "model", "walked model")
    split = lineage.step("split", inputs=[raw], outputs=[train])
    lineage.step("other", outputs=[produced("unrelated")])
    reference = lineage.step("reference", inputs=[base, train], outputs=[trained])
    lineage.finish("FINISHED", final_model=trained)
    assert lineage.degraded is None

    (version,) = client.search_model_versions("name = 'walked'")
    model = client.get_logged_model(version.tags["model_id"])
    for note in (model.tags[NOTE], version.description):
        assert f"runs/{split}" in note and f"runs/{reference}" in note
        assert sha("bytes") in note and "/data/rows.jsonl" in note and base.digest in note
        assert "other" not in note
    given = client.search_logged_models([lineage.experiment_id], f"tags.digest = '{base.digest}'")[0]
    assert f"models/{given.model_id}" in model.tags[NOTE]
    assert "was given" in given.tags[NOTE]
    assert f"models/{model.model_id}" in client.get_run(lineage.run_id).data.tags[NOTE]
    assert client.get_run(lineage.run_id).info.run_name == "walked ρ=0.7 · 3 ran"
