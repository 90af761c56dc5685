"""A team's servers on one machine, as plain processes: S3, MLflow, Prefect, and a worker for each work pool.

All of it lives in one folder that only the user can read: data, credentials, logs, and `stack.json`, which says
what runs where. `up` completes whatever is missing, so it is also the way to mend a stack; `down` keeps the data.
"""

import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra import stack_processes as processes
from infra import stack_services as parts
from infra.errors import RequestError
from infra.seaweedfs import free_ports
from infra.stack_processes import Service, Started

Tell = Callable[[str], None]
GIVEN_PORTS = {parts.S3: "--s3-port", parts.MLFLOW: "--mlflow-port", parts.PREFECT: "--prefect-port"}


@dataclass
class State:
    """What `stack.json` holds."""

    ports: dict[str, list[int]] = field(default_factory=dict)
    processes: dict[str, Started] = field(default_factory=dict)
    gpu_runs: int | None = None
    """The limit of the pool `gpu` that was last asked for."""
    deployed: dict[str, Any] = field(default_factory=dict)
    """What setup and the deployments were made for; empty before they were made."""


@dataclass(frozen=True)
class Condition:
    """One process as it is now."""

    name: str
    pid: int | None
    """None when it does not run."""
    url: str
    healthy: bool
    log: str


class Stack:
    """The stack in `folder`; `checkout` holds the code and the `prefect.yaml` that its workers run."""

    def __init__(self, folder: Path, checkout: Path) -> None:
        self.folder = folder.resolve()
        self.checkout = checkout.resolve()

    @property
    def env_file(self) -> Path:
        """Shell lines that make a terminal use the stack; there while it is up."""
        return self.folder / "env"

    def log(self, name: str) -> Path:
        """What a process has written, over all its starts."""
        return self.folder / "logs" / f"{name}.log"

    def up(self, given_ports: Mapping[str, int], gpu_runs: int | None, tell: Tell) -> None:
        """Start what does not run, then set the server up and deploy; a stack that is up is left alone.

        Raises `RequestError` for ports that are taken, `StackError` for a process that does not come up.
        """
        if not (self.checkout / "prefect.yaml").is_file():
            raise RequestError(
                f"{self.checkout} has no prefect.yaml; give a checkout of this project with --checkout"
            )
        with self._locked() as state:
            self._choose_ports(state, given_ports)
            services = self._services(state)
            if gpu_runs is None and state.gpu_runs is None:
                gpu_runs = 1  # the first time; later what somebody has set meanwhile stays
            state.gpu_runs = gpu_runs or state.gpu_runs
            wanted = {"checkout": str(self.checkout), "gpu_runs": state.gpu_runs}
            servers, workers = parts.STAGES[:-1], parts.STAGES[-1]
            for stage in servers:
                self._start(state, [services[name] for name in stage], tell)
            if state.deployed != wanted:
                self._set_up(state, gpu_runs, tell)
                state.deployed = wanted
            self._start(state, [services[name] for name in workers], tell)
            self._write_env(state)

    def down(self, tell: Tell) -> None:
        """Stop workers, then the servers they report to; data, logs and ports are kept. Raises `StackError`."""
        with self._locked() as state:
            for stage in reversed(parts.STAGES):
                known = [state.processes[name] for name in stage if name in state.processes]
                if any(item.process() for item in known):
                    tell(f"stopping {' and '.join(stage)}")
                processes.stop(known)
            processes.kill_members(self.folder)
            state.processes, state.deployed = {}, {}
            self.env_file.unlink(missing_ok=True)

    def status(self) -> list[Condition]:
        """Every process, asked now; empty for a stack that was never started."""
        state = self._read()
        return (
            [self._condition(state, service) for service in self._services(state).values()] if state.ports else []
        )

    def _services(self, state: State) -> dict[str, Service]:
        return parts.services(self.folder, state.ports, self.checkout)

    def _condition(self, state: State, service: Service) -> Condition:
        started = state.processes.get(service.name)
        alive = started is not None and started.process() is not None
        return Condition(
            name=service.name,
            pid=started.pid if started and alive else None,
            url=service.url,
            healthy=alive and service.healthy(),
            log=str(self.log(service.name)),
        )

    def _start(self, state: State, stage: list[Service], tell: Tell) -> None:
        for service in stage:
            started = state.processes.get(service.name)
            if started and started.process():
                tell(f"{service.name} is up: {service.url}")
                continue
            tell(f"starting {service.name}: {service.url}")
            state.processes[service.name] = processes.start(service, self.folder, self.log(service.name))
            self._write(state)  # before anything can go wrong: `down` must find it
        for service in stage:
            processes.wait_until_healthy(service, state.processes[service.name], self.log(service.name))

    def _set_up(self, state: State, gpu_runs: int | None, tell: Tell) -> None:
        environment = parts.worker_environment(self.folder, state.ports, self.checkout)
        python = [sys.executable, "-m"]
        limit = [] if gpu_runs is None else ["--gpu-runs", str(gpu_runs)]
        commands = {
            "setup": [*python, "infra.setup", *limit],
            "deploy": [*python, "prefect", "--no-prompt", "deploy", "--all"],
        }
        for name, command in commands.items():
            tell(f"running {name}: {shlex.join(['python', *command[1:]])}")
            processes.run_to_end(name, command, environment, self.folder, self.checkout, self.log(name))

    def _choose_ports(self, state: State, given: Mapping[str, int]) -> None:
        """Given ports, or else those of last time, or else free ones."""
        running = any(started.process() for started in state.processes.values())
        for name, count in parts.PORTS.items():
            known = state.ports.get(name, [])
            if running and given.get(name, known[0]) != known[0]:
                raise RequestError(
                    f"{name} uses port {known[0]}; for another one run `forgetting stack down` first"
                )
            if running:
                continue
            if name in given:
                if not _is_free(given[name]):
                    raise RequestError(
                        f"{GIVEN_PORTS[name]} {given[name]}: something listens there; choose another"
                    )
                state.ports[name] = [given[name], *(known[1:] or free_ports(count - 1))]
            elif not known or not all(map(_is_free, known)):
                state.ports[name] = free_ports(count)

    def _write_env(self, state: State) -> None:
        environment = parts.client_environment(self.folder, state.ports)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
        _write_private(self.env_file, "".join(lines))

    @contextmanager
    def _locked(self) -> Iterator[State]:
        """The state, for one command at a time; written at the end, whatever happened."""
        for folder in (self.folder, self.folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / ".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RequestError(f"another `forgetting stack` command is at work in {self.folder}") from None
            state = self._read()
            try:
                yield state
            finally:
                self._write(state)

    def _read(self) -> State:
        path = self.folder / "stack.json"
        if not path.exists():
            return State()
        data = json.loads(path.read_text(encoding="utf-8"))
        started = {name: Started(**item) for name, item in data.pop("processes").items()}
        return State(**data, processes=started)

    def _write(self, state: State) -> None:
        _write_private(self.folder / "stack.json", json.dumps(asdict(state), indent=1))


def _write_private(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # as servers do: connections that have just ended are no listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts.HOST, port))
        except OSError:
            return False
    return True
