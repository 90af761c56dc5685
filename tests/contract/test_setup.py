"""`infra.setup` against a real Prefect server: what it makes, what it leaves alone."""

import pytest
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.doctor import probe_prefect
from infra.errors import RequestError
from infra.setup_prefect import Plan, apply

pytestmark = pytest.mark.usefixtures("prefect_server")


def changed(plan: Plan | None = None) -> list[str]:
    """What is not as it was before."""
    return [line for line in apply(plan or Plan()) if not line.startswith(("there", "off"))]


def test_the_second_time_changes_nothing() -> None:
    assert "no work pool `gpu`, no work pool `cpu`, no concurrency limit `gpu-slot`" in probe_prefect()
    assert [line.split()[0] for line in changed()] == ["created"] * 4
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
