"""`forgetting lineage --relink`: what MLflow has lost or never heard comes back from the store, once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from infra.curve_spool import Target
from infra.curves import CurveSender
from infra.lineage import CURRENT_ALIAS, Lineage
from infra.lineage_runs import RELINKED_FROM
from infra.lineage_writer import INCOMPLETE_TAG, Point
from infra.sealed import seal, unseal
from tests.mlflow_snapshot import snapshot
from tests.unit.flows.lineage_world import Command, World, record_comparison

pytestmark = pytest.mark.usefixtures("recorded_here")
LoseMlflow = Callable[[], dict[str, Any]]


def without_origin(found: dict[str, Any]) -> dict[str, Any]:
    """A snapshot without what only relinked runs say."""
    for run in found["runs"].values():
        run["tags"].pop(RELINKED_FROM, None)
    return found


@pytest.fixture
def lose_mlflow(world: World, monkeypatch: pytest.MonkeyPatch) -> LoseMlflow:
    """Has MLflow begin anew; returns what it held.

    Somewhere else, because MLflow goes on with a deleted file as long as the process lives.
    """

    def lose() -> dict[str, Any]:
        before = snapshot(world.tracking_uri)
        world.tracking_uri = world.tracking_uri.replace("mlflow.db", "new.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", world.tracking_uri)
        return before

    return lose


def pipeline_runs(world: World) -> list[Any]:
    """Those of the first and the second run."""
    client = world.client()
    experiment = client.get_experiment_by_name("forgetting")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.step = 'pipeline'")
    return sorted(found, key=lambda run: run.data.tags["prefect_flow_run_id"])


def child(client: MlflowClient, pipeline: Any, label: str) -> Any:
    query = f"tags.`mlflow.parentRunId` = '{pipeline.info.run_id}' and tags.step = '{label}'"
    (found,) = client.search_runs([pipeline.info.experiment_id], query)
    return found


def test_a_lost_database_comes_back_once(lineage: Command, world: World, lose_mlflow: LoseMlflow) -> None:
    before = lose_mlflow()
    made = lineage("--relink", "--json")
    assert made.status == 0
    assert [(item["flow_run_id"], item["action"]) for item in made.document["changes"]] == [
        ("first", "created"),
        ("second", "created"),
    ]
    after = without_origin(snapshot(world.tracking_uri))
    assert after["runs"] == before["runs"]
    assert after["versions"].keys() == before["versions"].keys() == {"demo/1"}
    assert after["versions"]["demo/1"]["aliases"] == [CURRENT_ALIAS]
    assert [run.info.start_time for run in pipeline_runs(world)] == [1767322800000, 1767409200000]
    again = lineage("--relink")
    assert again.status == 0
    assert "nothing changed" in again.output and "2 flow runs" in again.output
    assert without_origin(snapshot(world.tracking_uri)) == after
    checked = lineage("demo", "--check", "--json")
    assert (checked.status, checked.document["mlflow"]["without_run"]) == (0, [])


def test_relinked_runs_say_which_runs_they_stand_for(
    lineage: Command, world: World, lose_mlflow: LoseMlflow
) -> None:
    lost = pipeline_runs(world)[0].info.run_id
    lose_mlflow()
    assert lineage("--relink").status == 0
    first, second = pipeline_runs(world)
    assert first.data.tags[RELINKED_FROM] == lost
    made = child(world.client(), first, "partition")
    assert made.data.tags[RELINKED_FROM] == world.commits["partition"].provenance["mlflow_run_id"]
    assert child(world.client(), second, "partition").data.tags["producer_run_id"] == made.info.run_id


def test_the_page_of_a_comparison_comes_back(
    lineage: Command, world: World, lose_mlflow: LoseMlflow, tmp_path: Path
) -> None:
    record_comparison(world)
    lose_mlflow()
    assert lineage("--relink").status == 0
    comparison = pipeline_runs(world)[-1].info.run_id
    page = world.client().download_artifacts(comparison, "comparison.html", str(tmp_path))
    assert Path(page).read_text() == "<p>compared</p>"


def test_runs_beyond_the_first_page_are_known(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.lineage_runs.RUNS_PER_PAGE", 1)
    before = snapshot(world.tracking_uri)
    assert len(before["runs"]) > 2
    assert "nothing changed" in lineage("--relink").output
    assert snapshot(world.tracking_uri) == before


def test_what_mlflow_has_is_left_alone(lineage: Command, world: World) -> None:
    before = snapshot(world.tracking_uri)
    assert "nothing changed" in lineage("--relink").output
    assert snapshot(world.tracking_uri) == before


def test_a_run_that_ended_while_mlflow_was_down_is_closed(lineage: Command, world: World) -> None:
    before = snapshot(world.tracking_uri)
    client, (first, _) = world.client(), pipeline_runs(world)
    forget = child(client, first, "forget").info.run_id
    for run_id in (first.info.run_id, forget):
        client.update_run(run_id, status="RUNNING")
    client.delete_tag(forget, "artifact.digest")
    done = lineage("--relink", "--json")
    assert [(item["flow_run_id"], item["action"]) for item in done.document["changes"]] == [("first", "completed")]
    assert snapshot(world.tracking_uri) == before
    assert client.get_run(first.info.run_id).info.end_time == 1767326400000
    assert lineage("--relink", "--json").document["changes"] == []


def test_a_step_that_mlflow_did_not_hear_of_is_added(lineage: Command, world: World) -> None:
    """As after an outage in the middle of a run."""
    store = world.root / "v1/runs/third.json"
    record = unseal((world.root / "v1/runs/second.json").read_bytes())
    third = Lineage.start(world.tracking_uri, experiment="forgetting", recipe="demo", variant="ρ=0.7")
    third.step("split", cached=True, fingerprint=world.commits["split"].fingerprint)
    third.gap = "MLflow was away"
    third.finish("FINISHED")
    assert third.run_id is not None
    store.write_bytes(seal({**record, "flow_run_id": "third", "mlflow_run_id": third.run_id}))
    assert lineage("--relink").status == 0
    client = world.client()
    run = client.get_run(third.run_id)
    assert INCOMPLETE_TAG not in run.data.tags
    assert f"runs/{child(client, run, 'forget').info.run_id}" in run.data.tags["mlflow.note.content"]
    split = child(client, run, "split").data.tags
    assert split["producer_run_id"] == world.commits["split"].provenance["mlflow_run_id"], "it had no link"
    assert "nothing changed" in lineage("--relink").output


def test_an_altered_commit_is_not_told_to_mlflow(lineage: Command, world: World, lose_mlflow: LoseMlflow) -> None:
    """MLflow would become the witness of whoever altered it."""
    lose_mlflow()
    world.edit("partition", lambda data: data["payload"]["config"].update(partition={"rho": "0.9"}))
    done = lineage("--relink")
    assert done.status == 1
    assert "left out: partition of the flow run first" in done.output
    assert world.record("partition").name in done.output
    labels = {name.partition(" ")[2] for name in snapshot(world.tracking_uri)["runs"]}
    assert "1 forget" in labels and "1 partition" not in labels
    assert lineage("--relink", "--json").document["changes"] == []


def test_the_curves_come_back_and_a_late_spool_adds_no_point(
    lineage: Command, world: World, lose_mlflow: LoseMlflow, tmp_path: Path
) -> None:
    lines = [{"step": step, "milliseconds": 1767323000000 + step, "lr": 0.1 / step} for step in (1, 2, 3)]
    file = world.path("forget", "aux/metrics.jsonl")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_id, pipeline = world.commits["forget"].provenance["mlflow_run_id"], pipeline_runs(world)[0].info.run_id
    lose_mlflow()
    assert lineage("--relink").status == 0

    sender = CurveSender(tmp_path / "curves", world.tracking_uri, "forgetting", lambda: None)
    spool = sender.open(Target("demo", "forget", world.commits["forget"].fingerprint, run_id, pipeline, ""))
    for line in lines:
        spool.append(Point(int(line["step"]), {"train/lr": line["lr"]}, int(line["milliseconds"])))
    spool.end("FINISHED")
    sender.drain(30)
    assert not [path for path in (tmp_path / "curves").rglob("*") if path.is_file()], "all sent, none refused"

    client, first = world.client(), pipeline_runs(world)[0]
    for run in (first, child(client, first, "forget")):
        points = client.get_metric_history(run.info.run_id, "train/lr")
        assert [(point.step, point.value, point.timestamp) for point in points] == [
            (line["step"], line["lr"], line["milliseconds"]) for line in lines
        ]


def test_a_model_names_the_runs_to_relink(lineage: Command, world: World, lose_mlflow: LoseMlflow) -> None:
    lose_mlflow()
    split = lineage(world.commits["split"].digest, "--relink", "--json").document
    assert [item["flow_run_id"] for item in split["changes"]] == ["first", "second"], "both used it"
    assert "nothing changed" in lineage("demo", "--relink").output
    unknown = lineage("none", "--relink")
    assert unknown.status == 2


def test_a_run_that_was_killed_comes_back_as_killed(
    lineage: Command, world: World, lose_mlflow: LoseMlflow
) -> None:
    record = world.root / "v1/runs/first.json"
    record.write_bytes(seal({**unseal(record.read_bytes()), "finished": False}))
    lose_mlflow()
    assert lineage("--relink").status == 0
    first, second = pipeline_runs(world)
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert "nothing changed" in lineage("--relink").output


def test_an_mlflow_that_cannot_be_written_is_one_message(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    failed = lineage("--relink")
    assert failed.status == 1
    assert "error: MLflow at http://127.0.0.1:9 failed" in failed.errors
    assert "Traceback" not in failed.errors


@pytest.mark.parametrize(
    ("arguments", "told"), [((), "lineage of what?"), (("demo", "--relink", "--check"), "one")]
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...], told: str, lineage: Command) -> None:
    refused = lineage(*arguments)
    assert refused.status == 2
    assert told in refused.errors
