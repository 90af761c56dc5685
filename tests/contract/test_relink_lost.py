"""`forgetting lineage --relink` on runs that MLflow shows as running, with a real Prefect server to ask."""

from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Running

from flows import relink
from infra.folder_objects import FolderObjects
from infra.lease import LEASES, Leases
from infra.lineage import Lineage
from infra.lineage_writer import INCOMPLETE_TAG
from infra.sealed import seal, unseal
from infra.urls import open_objects
from tests.unit.flows.lineage_world import Command, World, lineage, original, recorded_here, world

__all__ = ["lineage", "original", "recorded_here", "world"]
pytestmark = pytest.mark.usefixtures("recorded_here", "prefect_server")


@flow(name="forgetting")
def forgetting() -> None:
    """Only registered."""


def begin(world: World) -> tuple[str, Lineage]:
    """A run at its second step, and its flow run's id."""
    with get_client(sync_client=True) as client:
        flow_run_id = str(client.create_flow_run(forgetting, state=Running()).id)
    run = Lineage.start(world.tracking_uri, experiment="forgetting", recipe="demo")
    run.step("split", cached=True, fingerprint=world.commits["split"].fingerprint)
    run.start_step("forget")
    record = unseal((world.root / "v1/runs/second.json").read_bytes())
    record |= {"flow_run_id": flow_run_id, "mlflow_run_id": run.run_id, "finished": False}
    (world.root / f"v1/runs/{flow_run_id}.json").write_bytes(seal(record))
    return flow_run_id, run


def crash(flow_run_id: str) -> None:
    """As the automation for silent runs does."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Crashed(), force=True)


def running(world: World) -> int:
    client = world.client()
    experiment = client.get_experiment_by_name("forgetting")
    return len(client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"))


def test_a_run_that_goes_on_is_left_open_and_one_whose_host_was_lost_is_closed(
    lineage: Command, world: World
) -> None:
    flow_run_id, run = begin(world)
    goes_on = lineage("--relink")
    assert f"left open: MLflow run {run.run_id}: Prefect at" in goes_on.output
    assert "calls the flow run Running" in goes_on.output
    assert running(world) == 2, "the run and its step"

    crash(flow_run_id)
    closed = lineage("--relink", "--json").document
    assert [(item["action"], item["mlflow_run_id"]) for item in closed["changes"]] == [("closed", run.run_id)]
    assert running(world) == 0
    ended = world.client().get_run(str(run.run_id))
    assert (ended.info.status, ended.data.tags[INCOMPLETE_TAG]) == (
        "KILLED",
        "its host was lost; Prefect says that its flow run is over",
    )
    again = lineage("--relink", "--json").document
    assert (again["changes"], again["left_open"]) == ([], {})


def test_a_run_that_prefect_has_given_up_but_that_works_is_left_open(lineage: Command, world: World) -> None:
    """Prefect did not hear of it for a while; the store did."""
    flow_run_id, _ = begin(world)
    crash(flow_run_id)
    lease = Leases(open_objects(str(world.root)), 60, flow_run_id).candidate("forget", "a").attempt()
    assert lease is not None
    with lease:
        assert "it holds a lease" in lineage("--relink").output
    assert running(world) == 2
    assert lineage("--relink", "--json").document["left_open"] == {}
    assert running(world) == 0


def test_a_run_that_ends_while_others_are_relinked_is_not_called_open(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_run_id, _ = begin(world)
    passes = []
    open_experiment = relink.open_experiment

    def crash_between_passes(*arguments: str) -> Any:
        passes.append(arguments)
        if len(passes) == 2:
            crash(flow_run_id)
        return open_experiment(*arguments)

    monkeypatch.setattr(relink, "open_experiment", crash_between_passes)
    done = lineage("--relink", "--json").document
    assert ([item["action"] for item in done["changes"]], done["left_open"]) == (["closed"], {})


def test_the_leases_are_read_once_for_all_open_runs(
    lineage: Command, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        begin(world)
    listed = []
    find = FolderObjects.find

    def counted(self: FolderObjects, prefix: str) -> Any:
        listed.append(prefix)
        return find(self, prefix)

    monkeypatch.setattr(FolderObjects, "find", counted)
    assert len(lineage("--relink", "--json").document["left_open"]) == 2
    assert listed.count(LEASES) == 2, "once in each of two passes"


@pytest.mark.parametrize(("url", "why"), [(None, "PREFECT_API_URL"), ("http://127.0.0.1:9/api", "cannot be asked")])
def test_without_a_server_that_knows_the_run_is_left_open(
    lineage: Command, world: World, url: str | None, why: str
) -> None:
    _, run = begin(world)
    with temporary_settings({PREFECT_API_URL: url}):
        assert why in lineage("--relink", "--json").document["left_open"][run.run_id]
    assert running(world) == 2
