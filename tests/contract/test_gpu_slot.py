"""The team's limit on GPU work, on a real Prefect server: who waits for a slot, and who does not."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.launch import StoppedError
from tasks.context import RunContext
from tasks.gpu_slot import gpu_slot
from tasks.spec import StepCall
from tests.racing import call, open_context

LIMIT = "test-slot"


@pytest.fixture(scope="module", autouse=True)
def limit(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    context, _ = open_context(str(tmp_path / "store"), tmp_path / "work")
    context.gpu_slot = LIMIT
    return context


def step(tmp_path: Path, *, on_device: bool) -> StepCall:
    plain = call(tmp_path / "traces")
    return replace(plain, spec=replace(plain.spec, on_device=on_device))


def taken() -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(LIMIT).active_slots


def test_a_step_holds_a_slot_while_it_computes(context: RunContext, tmp_path: Path) -> None:
    with gpu_slot(context, step(tmp_path, on_device=True)):
        assert taken() == 1
    assert taken() == 0


def test_a_step_waits_until_another_has_ended(
    context: RunContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = threading.Event()
    context.listener = lambda label, message: waits.set()
    entered: list[bool] = []

    def compute() -> None:
        with gpu_slot(context, step(tmp_path, on_device=True)):
            entered.append(True)

    thread = threading.Thread(target=compute)
    with concurrency(LIMIT, strict=True):
        thread.start()
        assert waits.wait(60)
        assert not entered
    thread.join(60)
    assert entered
    assert "failed to process item" not in caplog.text


def test_a_step_that_leaves_the_device_alone_takes_none(context: RunContext, tmp_path: Path) -> None:
    with concurrency(LIMIT, strict=True), gpu_slot(context, step(tmp_path, on_device=False)):
        assert taken() == 1


def test_a_run_that_is_stopped_waits_no_longer(context: RunContext, tmp_path: Path) -> None:
    context.launcher.stopping.set()
    call = step(tmp_path, on_device=True)
    with concurrency(LIMIT, strict=True), pytest.raises(StoppedError), gpu_slot(context, call):
        pytest.fail("it got a slot that was taken")


def test_a_missing_limit_is_an_error_and_not_no_limit(context: RunContext, tmp_path: Path) -> None:
    context.gpu_slot = "misspelt"
    with pytest.raises(Exception, match="misspelt"), gpu_slot(context, step(tmp_path, on_device=True)):
        pytest.fail("it went on without a limit")


def test_what_was_computed_is_kept_when_the_server_is_away_at_the_end(
    context: RunContext, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="lost-slot", limit=1))
    context.gpu_slot = "lost-slot"  # stays taken
    slot = gpu_slot(context, step(tmp_path, on_device=True))
    slot.__enter__()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        slot.__exit__(None, None, None)
    assert "the slot of lost-slot is free in 90 s" in caplog.text
