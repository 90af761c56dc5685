"""Curves against a real MLflow server that is killed, started again, or never there."""

import json
import logging
import threading
import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from infra.curve_spool import Spool, Target
from infra.curves import SKIPPED_TAG, CurveSender
from infra.lineage import Lineage, Produced
from infra.lineage_writer import INCOMPLETE_TAG, Point
from tests.mlflow_server import MlflowServer

pytestmark = pytest.mark.timeout(300)
PATIENCE = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("curves-server")).start()
    yield server
    server.kill()


@pytest.fixture
def client(server):
    return MlflowClient(server.uri, registry_uri=server.uri)


def targets(server, *steps):
    """A pipeline run with these steps running."""
    lineage = Lineage.start(server.uri, experiment="forgetting", recipe="curves")
    return [
        Target(
            "curves", step, "ff", lineage.start_step(step), lineage.run_id, "" if step == "forget" else f"{step}/"
        )
        for step in steps
    ]


def sender(server, folder):
    return CurveSender(folder, server.uri, "forgetting", lambda: None)


def point(step):
    return Point(step, {"train/loss": 1.0 / (step + 3), "train/lr": step * 1e-7}, 1_700_000_000_000 + step // 3)


def spooled(path):
    """{name: [(step, time, value)]} as the file has it."""
    curves = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for name, value in record.get("metrics", {}).items():
            curves.setdefault(name, []).append((record["step"], record["milliseconds"], value))
    return curves


def recorded(client, run_id, names):
    """The same as MLflow has it; duplicates would show."""
    return {
        name: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, name))
        for name in names
    }


def assert_recorded_once(client, target, curves):
    assert recorded(client, target.run_id, curves) == curves
    mirrored = {f"{target.mirror}{name}": points for name, points in curves.items()}
    assert recorded(client, target.pipeline_run_id, mirrored) == mirrored


def wait_until(reached):
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(spool):
    taken = Spool.take(spool.path)
    if taken is not None:
        taken.release()
    return taken is not None


def test_points_appear_while_the_step_runs_each_on_its_own_run_and_mirrored(server, client, tmp_path):
    reference, forget = targets(server, "reference", "forget")
    curves = sender(server, tmp_path)
    spools = [curves.open(reference), curves.open(forget)]
    for spool in spools:
        for step in range(5):
            spool.append(point(step))
    spools[1].append(Point(5, {"train/loss": float("nan"), "train/grad_norm": float("inf"), "train/lr": 0.5}, 7))
    wait_until(lambda: "train/lr" in client.get_run(forget.run_id).data.metrics)
    expected = spooled(spools[0].path)
    for spool in spools:
        spool.end("FINISHED")
    curves.drain(PATIENCE)
    assert_recorded_once(client, reference, expected)
    assert_recorded_once(client, forget, {"train/loss": expected["train/loss"]})
    assert client.get_run(forget.run_id).data.metrics["train/lr"] == 0.5
    assert client.get_run(forget.run_id).data.tags[SKIPPED_TAG] == "2"
    assert SKIPPED_TAG not in client.get_run(reference.run_id).data.tags
    assert list(curves.folder.iterdir()) == []


def test_server_killed_in_the_middle_of_a_curve_has_every_point_once_when_it_is_back(server, client, tmp_path):
    (target,) = targets(server, "forget")
    curves = sender(server, tmp_path)
    spool = curves.open(target)
    some_sent, killed = threading.Event(), threading.Event()

    def train():
        for step in range(2000):
            spool.append(point(step))
            if step == 700:
                some_sent.wait(PATIENCE)
            if step == 1400:
                killed.wait(PATIENCE)
        spool.end("FINISHED")

    training = threading.Thread(target=train)
    training.start()
    wait_until(lambda: spool.sent.offset > 0)
    some_sent.set()
    server.kill()
    killed.set()
    training.join(PATIENCE)
    assert not training.is_alive()
    wait_until(lambda: curves.outage is not None)
    expected = spooled(spool.path)
    assert {len(points) for points in expected.values()} == {2000}
    server.start()
    curves.drain(PATIENCE)
    assert curves.outage is None
    assert_recorded_once(client, target, expected)
    assert list(curves.folder.iterdir()) == []


def test_batch_that_was_taken_but_not_acknowledged_leaves_no_point_twice(server, client, tmp_path):
    (target,) = targets(server, "forget")
    curves = sender(server, tmp_path)
    spool = curves.open(target)
    for step in range(40):
        spool.append(point(step))
    expected = spooled(spool.path)
    metrics = [Metric(name, value, at, step) for name, points in expected.items() for step, at, value in points]
    client.log_batch(target.run_id, metrics[::2])
    client.log_batch(target.pipeline_run_id, metrics)
    spool.end("FINISHED")
    curves.drain(PATIENCE)
    assert_recorded_once(client, target, expected)


def test_curves_of_a_run_that_never_reached_the_server_are_sent_by_the_next(server, client, tmp_path, caplog):
    known, orphan = targets(server, "reference", "forget")
    unopened = Target("curves", "forget", "abc", None, orphan.pipeline_run_id, "")
    server.kill()
    curves = sender(server, tmp_path)
    spools = [curves.open(known), curves.open(unopened)]
    for spool in spools:
        for step in range(400):
            spool.append(point(step))
        spool.end("FINISHED")
    expected = spooled(spools[0].path)
    with caplog.at_level(logging.WARNING, logger="infra.curves"):
        curves.drain(1.0)
    (warning,) = caplog.messages
    assert "the curves of 2 steps are not in MLflow" in warning
    assert str(curves.folder) in warning
    assert "next `forgetting run`" in warning
    assert "Connection refused" in warning
    assert {spool.path for spool in spools} <= set(curves.folder.iterdir())

    server.start()
    for spool in spools:
        wait_until(lambda spool=spool: is_free(spool))  # the first sender may still be in its last attempt
    later = sender(server, tmp_path)
    later.drain(PATIENCE)
    assert_recorded_once(client, known, expected)
    (run,) = client.search_runs([client.get_run(known.run_id).info.experiment_id], "tags.fingerprint = 'abc'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == orphan.pipeline_run_id
    assert recorded(client, run.info.run_id, expected) == expected
    assert recorded(client, orphan.pipeline_run_id, expected) == expected
    assert list(later.folder.iterdir()) == []


def test_run_that_was_deleted_in_mlflow_does_not_hold_up_the_others(server, client, tmp_path, caplog):
    gone, forget = targets(server, "reference", "forget")
    client.delete_run(gone.run_id)
    curves = sender(server, tmp_path)
    spools = [curves.open(gone), curves.open(forget)]
    for spool in spools:
        spool.append(point(0))
    expected = spooled(spools[1].path)
    for spool in spools:
        spool.end("FINISHED")
    curves.drain(PATIENCE)
    assert_recorded_once(client, forget, expected)
    assert [path.suffix for path in curves.folder.iterdir()] == [".refused"]
    assert "MLflow refuses the curves of reference" in caplog.text


def test_recording_goes_on_when_the_server_is_back(server, client, tmp_path):
    lineage = Lineage.start(server.uri, experiment="forgetting", recipe="gap")
    ended = lineage.start_step("reference")
    curves = CurveSender(tmp_path, server.uri, "forgetting", lineage.recover)
    model = Produced("checkpoint", "model", "s3://bucket/model", "d" * 64)
    server.kill()
    lineage.finish_step(ended, outputs=[model], seconds=3.0)
    assert lineage.start_step("forget") is None
    assert lineage.degraded is not None
    spool = curves.open(Target("gap", "forget", "gap", None, lineage.run_id, ""))
    spool.append(point(1))
    server.start()
    wait_until(lambda: lineage.degraded is None)
    spool.end("FINISHED")
    curves.drain(PATIENCE)
    lineage.finish("FINISHED")
    run = client.get_run(ended)
    assert run.info.status == "FINISHED"
    assert run.data.tags["output.checkpoint.digest"] == model.digest
    assert run.data.metrics["seconds"] == 3.0
    pipeline = client.get_run(lineage.run_id)
    assert pipeline.info.status == "FINISHED"
    assert "failed" in pipeline.data.tags[INCOMPLETE_TAG]


@pytest.mark.parametrize("status, shown", [("FINISHED", "FINISHED"), (None, "KILLED")])
def test_run_that_mlflow_did_not_hear_the_end_of_is_closed_by_the_next(server, client, tmp_path, status, shown):
    lineage = Lineage.start(server.uri, experiment="forgetting", recipe="open")
    over, going_on = lineage.start_step("reference"), lineage.start_step("forget")
    lineage.finish_step(over)
    curves = sender(server, tmp_path)
    curves.begin("open", lineage.run_id)
    sender(server, tmp_path).drain(PATIENCE)
    assert client.get_run(lineage.run_id).info.status == "RUNNING"  # and is not for others to close
    if status is not None:
        curves.end(status, recorded=False)
    del curves  # as with its process
    later = sender(server, tmp_path)
    later.drain(PATIENCE)
    runs = [client.get_run(run_id) for run_id in (lineage.run_id, going_on, over)]
    assert [run.info.status for run in runs] == [shown, shown, "FINISHED"]
    assert [INCOMPLETE_TAG in run.data.tags for run in runs] == [True, True, False]
    assert list(later.folder.iterdir()) == []


def test_run_that_mlflow_heard_the_end_of_leaves_nothing(server, tmp_path):
    curves = sender(server, tmp_path)
    curves.begin("closed", "a-run")
    curves.drain(PATIENCE)
    curves.end("FINISHED", recorded=True)
    assert list(curves.folder.iterdir()) == []
