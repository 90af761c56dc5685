"""`infra.setup` against a real Prefect server: what it makes, what it leaves alone."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Pending, Running

from infra.doctor import probe_prefect
from infra.errors import RequestError
from infra.setup_automations import HAND_OUT, hand_out_again
from infra.setup_prefect import POOLS, Plan, apply
from tests.stack import PROJECT, until
from tests.webhook import webhook

pytestmark = pytest.mark.usefixtures("prefect_server")
SECONDS = 60


def changed(plan: Plan | None = None) -> list[str]:
    """What is not as it was before."""
    return [line for line in apply(plan or Plan()) if not line.startswith(("there", "off"))]


def test_the_second_time_changes_nothing() -> None:
    assert "no work pool `gpu`, no work pool `cpu`, no concurrency limit `gpu-slot`" in probe_prefect()
    assert [line.split()[0] for line in changed()] == ["created"] * 5
    assert changed() == []
    assert "WARNING" not in probe_prefect()


def test_what_a_person_has_tuned_stays_unless_asked_for() -> None:
    changed()
    assert len(changed(Plan(gpu_runs=2, gpu_slots=3))) == 2
    with get_client(sync_client=True) as client:
        client.update_work_pool("cpu", WorkPoolUpdate(concurrency_limit=5))
        (automation,) = client.read_automations_by_name("forgetting: crash silent runs")
        client.pause_automation(automation.id)
        assert changed() == []
        assert client.read_work_pool("gpu").concurrency_limit == 2
        assert client.read_work_pool("cpu").concurrency_limit == 5
        assert client.read_global_concurrency_limit_by_name("gpu-slot").limit == 3
        assert not client.read_automations_by_name("forgetting: crash silent runs")[0].enabled


def test_failures_are_told_to_a_block_once_it_is_named() -> None:
    changed()
    with pytest.raises(RequestError, match="webhook/nowhere: no such block"):
        changed(Plan(notify="webhook/nowhere"))
    Webhook(url="http://127.0.0.1:9/").save("team")
    assert changed(Plan(notify="webhook/team")) == ["created       automation “forgetting: tell of failures”"]
    assert changed(Plan(notify="webhook/team")) == []
    assert changed() == []


@flow(name="forgetting")
def forgetting() -> None:
    """Only registered."""


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the webhook `listener` is told."""
    with webhook("listener") as heard:
        yield heard


def fail(client: SyncPrefectClient) -> FlowRun:
    run = client.create_flow_run(forgetting, state=Running())
    client.set_flow_run_state(run.id, Failed(message="no tokens"))
    return run


def of_run(told: list[str], run: FlowRun) -> list[str]:
    return [text for text in told if run.name in text]


def failure_of(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any] | None:
    """The event, once the server has written it down."""
    wanted = {"resource": {"id": [f"prefect.flow-run.{run.id}"]}, "event": {"name": ["prefect.flow-run.Failed"]}}
    found: list[dict[str, Any]] = client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]
    return found[0] if found else None


def test_a_failure_that_the_server_hears_of_twice_is_told_once(told: list[str]) -> None:
    """It takes an event up again where another automation has failed on it, with a locked database say."""
    changed(Plan(notify="webhook/listener"))
    with get_client(sync_client=True) as client:
        run = fail(client)
        until(lambda: of_run(told, run) or None, "the webhook is told", SECONDS)
        event = until(lambda: failure_of(client, run), "the event is stored", SECONDS)
        client.request("POST", "/events", json=[{**event, "id": str(uuid4()), "follows": None}])
        later = fail(client)
        until(lambda: of_run(told, later) or None, "the webhook is told of the next one", SECONDS)
    assert len(of_run(told, run)) == 1


def test_a_run_that_a_worker_took_and_did_not_begin_is_handed_out_again() -> None:
    changed()
    with get_client(sync_client=True) as client:
        automation = client.create_automation(hand_out_again(within=timedelta(seconds=10)))
        deployment = client.create_deployment(client.create_flow(forgetting), "forgetting", work_pool_name="gpu")

        def taken() -> FlowRun:
            return client.create_flow_run_from_deployment(deployment, state=Pending())

        def state(run: FlowRun) -> str | None:
            return client.read_flow_run(run.id).state_name

        lost, begun, undeployed = taken(), taken(), client.create_flow_run(forgetting, state=Pending())
        client.set_flow_run_state(begun.id, Running())
        until(lambda: state(lost) == "Scheduled" or None, "it is scheduled", SECONDS)
        assert (state(begun), state(undeployed)) == ("Running", "Pending")
        client.delete_automation(automation)
        client.delete_deployment(deployment)


def test_only_runs_of_pools_of_processes_are_handed_out_again() -> None:
    """A pod may have to wait for a node."""
    template = json.loads((PROJECT / "infra/kubernetes/cpu-pool-job-template.json").read_text())
    of_pods = Plan(pool_type="kubernetes", templates=dict.fromkeys(POOLS, template))
    with get_client(sync_client=True) as client:
        for plan in (Plan(), of_pods, Plan()):
            for name in POOLS:
                with suppress(ObjectNotFound):
                    client.delete_work_pool(name)
            changed(plan)
            assert len(client.read_automations_by_name(HAND_OUT)) == (plan.pool_type == "process")


def test_a_pool_of_another_type_is_refused_with_what_to_do() -> None:
    changed()
    with pytest.raises(RequestError, match="delete it first"):
        changed(Plan(pool_type="kubernetes"))


def test_without_a_server_it_says_so() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(RequestError, match="PREFECT_API_URL"),
    ):
        changed()
