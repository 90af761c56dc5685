"""Processes that outlive the command that started them: begun, known again, waited for, ended with their families.

A process is ours when its id *and* its start are what was noted: ids are given anew. Whatever it starts inherits a
mark in its environment, so that a run whose worker was killed is found too.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.errors import StackError

MARK = "FORGETTING_STACK"
"""The environment variable that names the stack's folder in everything that belongs to it."""
START_SECONDS = 180.0
STOP_SECONDS = 20.0
"""How long a process may take to end, and a run to save, before it is killed."""
LOG_TAIL_BYTES = 3000
_INHERITED = {
    *("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
}
_INHERITED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "HF_", "OMP_")


@dataclass(frozen=True)
class Service:
    """How one process is started and how one sees that it works."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    """Beside the few variables that every process inherits"""
    url: str
    """What a person opens or a client talks to."""
    healthy: Callable[[], bool]
    """Asks it over the network."""


@dataclass(frozen=True)
class Started:
    """What identifies a running process."""

    pid: int
    since: float
    """Seconds from the machine's start to the process's"""

    def process(self) -> psutil.Process | None:
        """The process, if it is still the one that was started and has not ended."""
        try:
            process = psutil.Process(self.pid)
            if abs(_since(process) - self.since) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            pass
        return None


def environment(own: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What a process of the stack in `folder` gets: an allow-list of ours, `own`, and the mark."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    beside_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
    return {**kept, "NO_PROXY": beside_proxy, **own, MARK: str(folder)}


def start(service: Service, folder: Path, log: Path) -> Started:
    """Start it in a session of its own, so that it survives the terminal; its output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(service.command),
            env=environment(service.environment, folder),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # a worker ends itself by SIGINT, which what a script starts in the background ignores
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return Started(process.pid, _since(psutil.Process(process.pid)))


def wait_until_healthy(service: Service, started: Started, log: Path) -> None:
    """Raises `StackError` when it ends, or has not become healthy in `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while not service.healthy():
        if started.process() is None:
            raise StackError(f"{service.name} ended while it started; the end of {log}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise StackError(
                f"{service.name} does not answer at {service.url} after {START_SECONDS:.0f} s; the end of {log}:\n"
                f"{tail(log)}"
            )
        time.sleep(0.2)


def run_to_end(
    name: str, command: Sequence[str], own: Mapping[str, str], folder: Path, cwd: Path, log: Path
) -> None:
    """Run a command of the stack that ends by itself. Raises `StackError` when it fails."""
    with log.open("ab") as output:
        status = subprocess.run(
            list(command),
            env=environment(own, folder),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ).returncode
    if status != 0:
        raise StackError(f"{name} failed with exit status {status}; the end of {log}:\n{tail(log)}")


def stop(started: Iterable[Started]) -> None:
    """End these processes and all below them: asked first, killed after `STOP_SECONDS`."""
    leaders = [process for item in started if (process := item.process()) is not None]
    family = set(leaders)
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            family.update(leader.children(recursive=True))
            # the runs of a worker save what they have; their own children are for them to stop
            for process in (leader, *leader.children()):
                process.terminate()
    _, alive = psutil.wait_procs(list(family), timeout=STOP_SECONDS)
    _kill(alive)


def kill_members(folder: Path) -> None:
    """End at once what still bears the mark of the stack in `folder`, such as a run whose worker was killed."""
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder):
                members.append(process)
    _kill(members)


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""


def _kill(processes: Iterable[psutil.Process]) -> None:
    processes = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    if alive:
        raise StackError(f"these processes cannot be ended: {', '.join(str(process.pid) for process in alive)}")


def _since(process: psutil.Process) -> float:
    # the difference stands when the clock is set, each alone does not
    return round(process.create_time() - psutil.boot_time(), 2)
