"""The stack's processes, with small ones in the place of servers: whose they are, what they get, how they end."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import stack_processes
from infra.errors import RequestError, StackError
from infra.stack import Stack
from infra.stack_processes import Service, Started, kill_members, start, stop, wait_until_healthy

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on'); time.sleep(600)"


def service(code: str) -> Service:
    return Service("small", [sys.executable, "-u", "-c", code], {}, "nowhere", lambda: False)


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    yield
    kill_members(tmp_path)


def test_a_process_that_got_the_same_id_later_is_not_ours(tmp_path: Path) -> None:
    started = start(service(SLEEP), tmp_path, tmp_path / "log")
    assert started.process() is not None
    other = replace(started, since=started.since - 60)
    assert other.process() is None
    stop([other])
    assert psutil.pid_exists(started.pid)
    stop([started])
    assert started.process() is None


@pytest.mark.security("secrets in the environment of processes")
def test_a_process_gets_an_allow_list_and_a_session_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    started = start(service(SLEEP), tmp_path, tmp_path / "log")
    environment = psutil.Process(started.pid).environ()
    assert not {"SOME_TOKEN", "PREFECT_API_URL"} & environment.keys()
    assert environment["PATH"] == os.environ["PATH"]
    assert os.getsid(started.pid) == started.pid


def test_ctrl_c_is_heard_even_by_what_a_background_script_started(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        started = start(service("print('on'); " + SLEEP), tmp_path, tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    while "on" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGINT)
    os.waitpid(started.pid, 0)
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


def test_one_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_processes, "STOP_SECONDS", 0.5)
    started = start(service(STUBBORN), tmp_path, tmp_path / "log")
    while "on" not in (tmp_path / "log").read_text():
        time.sleep(0.05)
    stop([started])
    assert started.process() is None


def test_what_a_killed_process_leaves_behind_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(p.pid); p.wait()"
    )
    started = start(service(code), tmp_path, log)
    while not log.read_text().endswith("\n"):
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)
    orphan = psutil.Process(int(log.read_text()))
    kill_members(tmp_path / "another")
    assert orphan.is_running()
    kill_members(tmp_path)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_ends_at_once_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    bad = service("raise SystemExit('the port is taken')")
    log = tmp_path / "log"
    with pytest.raises(StackError, match="the port is taken"):
        wait_until_healthy(bad, start(bad, tmp_path, log), log)


def test_nothing_starts_when_a_port_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    project = Path(__file__).resolve().parents[3]
    told: list[str] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(RequestError, match=f"--prefect-port {port}: something listens there"):
            Stack(tmp_path / "stack", project).up({"prefect": port}, 1, told.append)
    assert told == []


def test_a_process_that_is_gone_is_no_error_for_stop() -> None:
    stop([Started(2**22 - 1, 1.0)])
