"""A flow that waits for runs on the pools: a server that goes away, runs that are deleted, cancelling."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Running

from flows import children as module
from flows.children import Children, account, completed

SECONDS = 120


@flow(name="child")
def child() -> None:
    """Only registered: these tests say themselves how its runs are doing."""


@contextmanager
def answering(status: int, port: int = 0, location: str = "") -> Iterator[int]:
    """An HTTP server on `port` that answers everything with `status`; with `location`, that it is there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", f"{location}{self.path}")
            self.end_headers()

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def client(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    # else Prefect's client itself tries for a minute
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
        yield client


@contextmanager
def asked_at(port: int) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        yield


def begin(client: SyncPrefectClient) -> FlowRun:
    return client.create_flow_run(child, state=Running())


def started(runs: list[FlowRun]) -> Children:
    """As after `start`, which needs deployments; the stack's tests have some."""
    children = Children()
    children._started += runs
    return children


def test_runs_are_awaited_while_the_server_is_away(
    client: SyncPrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    run = begin(client)
    ended: list[FlowRun] = []
    server = PREFECT_API_URL.value().removesuffix("/api")
    with answering(307, location=server) as port:
        pass

    def says(text: str) -> bool:
        return any(text in record.getMessage() for record in caplog.records if record.name == module.__name__)

    with asked_at(port):
        waiting = copy_context()
    thread = threading.Thread(target=lambda: ended.append(waiting.run(Children().ended, run)), daemon=True)
    thread.start()
    until(lambda: says("Prefect's server is away"))
    with answering(503, port):
        time.sleep(1)
    assert not says("was away for")
    with answering(307, port, location=server):
        until(lambda: says("Prefect's server was away for"))
        client.set_flow_run_state(run.id, Completed())
        thread.join(SECONDS)
    assert [completed(run) for run in ended] == [True]
    assert caplog.text.count("Prefect's server is away") == 1


def test_a_run_that_was_deleted_has_failed(client: SyncPrefectClient) -> None:
    run = begin(client)
    client.delete_flow_run(run.id)
    ended = Children().ended(run)
    assert not completed(ended)
    assert account(ended) == f"{run.name}: Deleted (somebody deleted it on the server)"


def test_a_server_that_refuses_is_not_asked_for_ever(client: SyncPrefectClient) -> None:
    run = begin(client)
    with answering(403) as port, asked_at(port), pytest.raises(httpx.HTTPStatusError, match="403"):
        Children().ended(run)


def test_a_call_that_fails_leaves_no_other_run_uncancelled(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, deleted, over, running = (begin(client) for _ in range(4))
    client.delete_flow_run(deleted.id)
    client.set_flow_run_state(over.id, Completed())
    set_state = SyncPrefectClient.set_flow_run_state

    def refuse(self: SyncPrefectClient, run_id: Any, state: State[Any], **options: Any) -> Any:
        if run_id == stuck.id:
            raise httpx.ReadTimeout("the server does not answer")
        return set_state(self, run_id, state, **options)

    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_state", refuse)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ZeroDivisionError), started([stuck, deleted, over, running]):
            raise ZeroDivisionError
    finally:
        signal.signal(signal.SIGTERM, handler)
    states = [client.read_flow_run(run.id).state_name for run in (stuck, over, running)]
    assert states == ["Running", "Completed", "Cancelling"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"{stuck.name} could not be cancelled and goes on"
    ]
