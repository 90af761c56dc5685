"""A step's process: its result, its errors and its end reach the parent."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from infra.launch import Channel, ChildDiedError, Launcher, StoppedError


class AwkwardError(Exception):
    """Pickles, but cannot be unpickled."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


def add_one(job: int, channel: Channel) -> int:
    channel.send({"kind": "note", "message": str(job)})
    return job + 1


def fail(job: str, channel: Channel) -> None:
    if job == "awkward":
        raise AwkwardError(code=7)
    raise ValueError(job)


def unpicklable(job: object, channel: Channel) -> Any:
    return lambda: job


def kill_itself(job: int, channel: Channel) -> None:
    os.kill(os.getpid(), job)


def work_until_stopped(job: object, channel: Channel) -> str:
    channel.send({"kind": "working"})
    while not channel.stop_requested:
        time.sleep(0.01)
    return "saved"


def hear_nothing(job: object, channel: Channel) -> None:
    """As when it hangs in a library's call."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    companion = subprocess.Popen(["sleep", "60"])
    channel.send({"kind": "working", "processes": (os.getpid(), companion.pid)})
    time.sleep(60)


def say_who_and_sleep(job: object, channel: Channel) -> None:
    channel.send({"kind": "pid", "pid": os.getpid()})
    time.sleep(60)


def run_silent() -> None:
    def tell(message: dict[str, Any]) -> None:
        if message["kind"] == "pid":
            print(message["pid"], flush=True)

    Launcher(1, []).run(say_who_and_sleep, None, tell)


def run_until_terminated() -> None:
    launcher = Launcher(1, [])
    signal.signal(signal.SIGTERM, lambda *_: launcher.stop())

    def tell(message: dict[str, Any]) -> None:
        if message["kind"] == "working":
            print("working", flush=True)

    print(launcher.run(work_until_stopped, None, tell), flush=True)


@pytest.fixture
def launcher() -> Launcher:
    return Launcher(1, [])


def ignore(message: dict[str, Any]) -> None:
    pass


def test_messages_and_the_result_arrive_in_order(launcher: Launcher) -> None:
    heard: list[dict[str, Any]] = []
    assert launcher.run(add_one, 1, heard.append) == 2
    assert heard == [{"kind": "start"}, {"kind": "note", "message": "1"}]


def test_an_error_keeps_its_type_and_brings_its_traceback(launcher: Launcher) -> None:
    with pytest.raises(ValueError, match="wrong") as caught:
        launcher.run(fail, "wrong", ignore)
    assert "in fail" in caught.value.__notes__[0]


def test_an_error_that_does_not_survive_pickling_still_says_what_it_was(launcher: Launcher) -> None:
    with pytest.raises(RuntimeError, match="AwkwardError: code 7"):
        launcher.run(fail, "awkward", ignore)


def test_a_result_that_cannot_be_sent_is_an_error(launcher: Launcher) -> None:
    with pytest.raises(Exception, match="lambda"):
        launcher.run(unpicklable, 1, ignore)


def test_a_killed_process_is_named_with_its_signal(launcher: Launcher) -> None:
    with pytest.raises(ChildDiedError, match=r"SIGKILL.*out of memory"):
        launcher.run(kill_itself, signal.SIGKILL, ignore)


def test_stopping_asks_the_running_and_refuses_the_next(launcher: Launcher) -> None:
    def stop_when_working(message: dict[str, Any]) -> None:
        if message["kind"] == "working":
            launcher.stop()

    assert launcher.run(work_until_stopped, None, stop_when_working) == "saved"
    with pytest.raises(StoppedError):
        launcher.run(add_one, 1, ignore)


def test_a_process_that_hears_no_request_to_end_is_killed_with_its_group(launcher: Launcher) -> None:
    processes: list[psutil.Process] = []

    def stop_when_working(message: dict[str, Any]) -> None:
        if message["kind"] == "working":
            processes.extend(map(psutil.Process, message["processes"]))
            launcher.stop(within=0.5)

    with pytest.raises(StoppedError, match=r"killed: .* within 0.5 s"):
        launcher.run(hear_nothing, None, stop_when_working)
    assert len(processes) == 2
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def test_a_process_that_saves_in_time_is_not_killed(launcher: Launcher) -> None:
    def stop_when_working(message: dict[str, Any]) -> None:
        if message["kind"] == "working":
            launcher.stop(within=60)

    assert launcher.run(work_until_stopped, None, stop_when_working) == "saved"


def test_a_process_that_says_nothing_ends_with_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import run_silent; run_silent()"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(timeout=10)


def test_a_signal_to_the_whole_group_leaves_the_process_time_to_save() -> None:
    """As Prefect's worker sends it to cancel a run."""
    parent = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import run_until_terminated; run_until_terminated()"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout
    assert parent.stdout.readline() == "working\n"
    os.killpg(parent.pid, signal.SIGTERM)
    assert parent.stdout.read() == "saved\n"


def test_a_listener_that_fails_does_not_leave_the_process_behind(launcher: Launcher) -> None:
    def fail_when_working(message: dict[str, Any]) -> None:
        if message["kind"] == "working":
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        launcher.run(work_until_stopped, None, fail_when_working)
    assert not launcher._children
