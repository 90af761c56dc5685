"""The local team stack as tests use it: commands, deployed runs, and every process that belongs to it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

from infra.objects import Objects
from infra.stack import Stack
from infra.stack_processes import MARK

PROJECT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "stack"]
RUN_SECONDS = 900
GPU_RUNS = 2


@dataclass
class Running:
    """The stack of this module."""

    folder: Path
    environment: dict[str, str]
    client: SyncPrefectClient

    def cli(self, *arguments: str, status: int = 0) -> str:
        return command(self.folder, *arguments, status=status)

    @property
    def gpu_slots(self) -> int:
        """How many slots of the limit on GPU work are taken."""
        return self.client.read_global_concurrency_limit_by_name("gpu-slot").active_slots

    def in_mlflow(self, query: str) -> list[Any]:
        """Pipeline runs and steps alike."""
        client = MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        (experiment,) = client.search_experiments(filter_string="name = 'forgetting'")
        return list(client.search_runs([experiment.experiment_id], query))

    def processes(self) -> dict[str, dict[str, Any]]:
        document = json.loads(subprocess.run(line(self.folder, "status", "--json"), capture_output=True).stdout)
        return {item["name"]: item for item in document["processes"]}

    def pid(self, name: str) -> int:
        """Of one of its processes, which runs."""
        conditions = {item.name: item for item in Stack(self.folder, PROJECT).status()}
        pid = conditions[name].pid
        assert pid is not None, f"{name} does not run"
        return pid

    def start(self, deployment: str, at: datetime | None = None, **parameters: Any) -> FlowRun:
        """A run of the deployment; `at` is when it is to begin, if not now."""
        found = self.client.read_deployment_by_name(deployment)
        state: State[Any] = Scheduled(scheduled_time=at)
        return self.client.create_flow_run_from_deployment(found.id, parameters=parameters, state=state)

    def finished(self, run: FlowRun, seconds: float = RUN_SECONDS) -> FlowRun:
        def over() -> FlowRun | None:
            now = self.client.read_flow_run(run.id)
            return now if now.state and now.state.is_final() else None

        ended: FlowRun = until(over, f"{run.name} ends", seconds)
        return ended

    def steps(self, run: FlowRun) -> dict[str, str]:
        """{step: name of its task run's state}"""
        of_run = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
        found = self.client.read_task_runs(flow_run_filter=of_run, task_run_filter=TaskRunFilter(), limit=100)
        return {task.name: task.state_name or "" for task in found}


@contextmanager
def running_stack(folder: Path, gpu_runs: int = GPU_RUNS) -> Iterator[Running]:
    """A stack that is up, and down afterwards."""
    try:
        lines = command(folder, "up", "--gpu-runs", str(gpu_runs))
        with exported(lines) as environment, get_client(sync_client=True) as client:
            yield Running(folder, environment, client)
    finally:
        command(folder, "down")


def line(folder: Path, *arguments: str) -> list[str]:
    return [*COMMAND, *arguments, "--dir", str(folder)]


def command(folder: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        line(folder, *arguments), env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def until(ask: Callable[[], Any], what: str, seconds: float = RUN_SECONDS) -> Any:
    """The first answer that is not None, which has to come within `seconds`."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.5)
    return answer


def family(flow: psutil.Process) -> list[psutil.Process]:
    """The process of a flow run, and all below it."""
    return [flow, *flow.children(recursive=True)]


def remaining(groups: Collection[int], folder: Path) -> list[str]:
    """What still runs in these process groups, or works below the folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            command = " ".join(process.cmdline())
            ours = os.getpgid(process.pid) in groups or str(folder) in command
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {command[:100]}")
    return found


def names_below(objects: Objects, folder: str) -> list[str]:
    """Names, without their ending, of the objects below a folder of a store."""
    return [stored.key.rsplit("/", 1)[1].removesuffix(".json") for stored in objects.find(folder)]


def most_at_once(runs: list[FlowRun]) -> int:
    """How many of these runs were running at the same moment at most."""
    spans = [(run.start_time, run.end_time) for run in runs]
    return max(sum(start <= moment < end for start, end in spans if start and end) for moment, _ in spans if moment)


def marked(folder: Path) -> list[psutil.Process]:
    """Every process that belongs to the stack, flow runs and their steps included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@contextmanager
def exported(text: str) -> Iterator[dict[str, str]]:
    """The environment that `up` prints, set."""
    variables = dict(item.removeprefix("export ").split("=", 1) for item in text.splitlines())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with temporary_settings({PREFECT_API_URL: variables["PREFECT_API_URL"]}):
            yield variables
