"""A flow that waits for runs on the pools: a server that goes away, runs that are deleted, cancelling."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Running, State

from flows import children as module
from flows.children import Children, account, completed

SECONDS = 120


@flow(name="child")
def child() -> None:
    """Only registered: these tests say themselves how its runs are doing."""


class Server:
    """A Prefect server with its own database on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/api"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-services"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        quiet = {"PREFECT_HOME": str(self._folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).is_success
        except httpx.HTTPError:
            return False


class Overloaded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(503)


class Forbidding(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    server.start()
    # else Prefect's client itself tries for a minute
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield server
    server.kill()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.1)
    with get_client(sync_client=True) as client:
        yield client


def begin(client: SyncPrefectClient) -> FlowRun:
    return client.create_flow_run(child, state=Running())


def started(runs: list[FlowRun]) -> Children:
    """As after `start`, which needs deployments; the stack's tests have some."""
    children = Children()
    children._started += runs
    return children


def test_runs_are_awaited_while_the_server_is_away(
    server: Server, client: SyncPrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    run = begin(client)
    ended: list[FlowRun] = []
    context = copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: ended.append(Children().ended(run)),), daemon=True)
    thread.start()
    server.kill()
    until(lambda: "Prefect's server is away" in caplog.text)
    with HTTPServer(("127.0.0.1", server.port), Overloaded) as overloaded:
        for _ in range(5):
            overloaded.handle_request()
    server.start()
    until(lambda: "Prefect's server was away for" in caplog.text)
    client.set_flow_run_state(run.id, Completed())
    thread.join(SECONDS)
    assert [completed(run) for run in ended] == [True]
    warnings = [record.getMessage()[:30] for record in caplog.records if record.name == "flows.children"]
    assert [text for text in warnings if "server" in text] == [
        "Prefect's server is away; it i",
        "Prefect's server was away for ",
    ], "once each"


def test_a_run_that_was_deleted_has_failed(client: SyncPrefectClient) -> None:
    run = begin(client)
    client.delete_flow_run(run.id)
    ended = Children().ended(run)
    assert not completed(ended)
    assert account(ended) == f"{run.name}: Deleted (somebody deleted it on the server)"


def test_a_server_that_refuses_is_not_asked_for_ever(client: SyncPrefectClient) -> None:
    run = begin(client)
    with HTTPServer(("127.0.0.1", 0), Forbidding) as forbidding:
        threading.Thread(target=forbidding.handle_request, daemon=True).start()
        with (
            temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{forbidding.server_port}/api"}),
            pytest.raises(httpx.HTTPStatusError, match="403"),
        ):
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
