"""A run on the team stack that is disturbed while it trains: nothing is left of it, and the next one goes on."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import psutil
import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from infra.lease import Leases
from infra.objects import Objects
from infra.store import open_store
from infra.training_checkpoints import TRAINING
from tests.stack import GPU_RUNS, Running, family, names_below, remaining, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EPOCHS = {1: 300, 2: 60}
"""By ranks: long enough to be disturbed on the way."""
STEPS_BEFORE = 100
"""Optimizer steps that are done when it is disturbed."""
OFTEN, NEVER = 20, 10**6
STOP_SECONDS = 15
"""Until the computation is over."""
GONE_SECONDS = 30
"""Until the flow's own process has said so, and is gone too: after that Prefect would kill it."""
STATE_SECONDS = 180
"""Until what the server and the store say of the run is true again."""


@dataclass(frozen=True)
class Disturbed:
    """A run that trains, and all of its processes."""

    stack: Running
    run: FlowRun
    process: psutil.Process
    family: tuple[psutil.Process, ...]
    groups: frozenset[int]

    @property
    def computing(self) -> frozenset[int]:
        """The groups of the step's processes, not the flow's own."""
        return self.groups - {self.process.pid}

    def left(self, groups: frozenset[int]) -> list[str]:
        """What still runs in these process groups, or works in the run's folder."""
        return remaining(groups, self.stack.folder / "state")


def kill_worker(it: Disturbed) -> None:
    os.kill(it.stack.processes()["gpu-worker"]["pid"], signal.SIGKILL)


def kill_flow(it: Disturbed) -> None:
    it.process.kill()


def lose_host(it: Disturbed) -> None:
    """Nobody is left who could tell the server."""
    kill_worker(it)
    kill_flow(it)


def kill_rank(it: Disturbed) -> None:
    next(process for process in it.family if process.environ().get("RANK") == "1").kill()


def cancel(it: Disturbed) -> None:
    it.stack.client.set_flow_run_state(it.run.id, Cancelling())


def terminate(it: Disturbed) -> None:
    it.process.terminate()


def terminate_worker(it: Disturbed) -> None:
    """Prefect's worker gives its runs no time to save then."""
    os.kill(it.stack.processes()["gpu-worker"]["pid"], signal.SIGTERM)


def parameters(processes: int, checkpoint_every: int) -> dict[str, object]:
    return {
        "recipe": "nano",
        "overrides": [
            "baselines=[]",
            "evaluate.tasks=[]",
            f"forget.epochs={EPOCHS[processes]}",
            f"execution.processes={processes}",
            f"execution.checkpoint_every={checkpoint_every}",
        ],
    }


def objects(stack: Running) -> Objects:
    return open_store(stack.environment["FORGETTING_STORE"]).objects


def names(stack: Running, folder: str) -> list[str]:
    return names_below(objects(stack), folder)


def held(stack: Running) -> list[str]:
    """What a run that is over must not hold any more: GPU slots and leases of steps."""
    leases = Leases(objects(stack), ttl=60)
    holders = [leases.holder("forget", fingerprint) for fingerprint in names(stack, "v1/leases/forget")]
    return ["slot"] * stack.gpu_slots + [str(holder) for holder in holders if holder]


def checkpoint(stack: Running) -> str:
    """The digest of the only fine-tune in the store, which is taken out, so that the next run makes it again."""
    store = open_store(stack.environment["FORGETTING_STORE"])
    (commit,) = store.commits("forget")
    store.objects.delete(f"v1/commits/forget/{commit.fingerprint}.json")
    return commit.digest


def training(stack: Running, run: FlowRun) -> Disturbed | None:
    """The run with its processes once it has trained for a while."""
    trained = (stack.folder / "state/work/steps").glob("forget-*/work/metrics.jsonl")
    if sum(len(path.read_text().splitlines()) for path in trained) < STEPS_BEFORE:
        now = stack.client.read_flow_run(run.id)
        assert now.state and not now.state.is_final(), now.state
        return None
    for process in psutil.Process(stack.processes()["gpu-worker"]["pid"]).children():
        if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run.id):
            members = tuple(family(process))
            return Disturbed(stack, run, process, members, frozenset(os.getpgid(item.pid) for item in members))
    raise AssertionError("the worker has no process for the run")


def resumed(stack: Running, run: FlowRun) -> int:
    """After which optimizer step the run went on, as its log says."""
    of_run = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    said = " ".join(log.message for log in stack.client.read_logs(of_run))
    found = re.findall(r"forget: resumed after optimizer step (\d+)", said)
    assert len(found) == 1, said
    return int(found[0])


def mlflow_status(stack: Running, run: FlowRun) -> str:
    (found,) = stack.in_mlflow(f"tags.prefect_flow_run_id = '{run.id}'")
    return str(found.info.status)


def running_in_mlflow(stack: Running) -> list[str]:
    """Pipeline runs and steps alike."""
    return [run.info.run_name for run in stack.in_mlflow("attributes.status = 'RUNNING'")]


@pytest.fixture(scope="module")
def undisturbed(stack: Running) -> Callable[[int], str]:
    """The digest of what so many ranks train when they are left alone."""

    @cache
    def by(processes: int) -> str:
        run = stack.finished(stack.start("forgetting/forgetting", **parameters(processes, NEVER)))
        assert run.state_name == "Completed", run.state
        return checkpoint(stack)

    return by


@pytest.fixture
def afresh(stack: Running) -> Iterator[None]:
    """Whatever becomes of a test, the next one finds a whole stack and no training."""
    yield
    stack.cli("up", "--gpu-runs", str(GPU_RUNS))
    shutil.rmtree(stack.folder / "state", ignore_errors=True)
    for folder in (f"{TRAINING}/forget", "v1/commits/forget"):
        objects(stack).delete_folder(folder)


@pytest.mark.parametrize(
    ("disturb", "processes", "checkpoint_every", "state", "same_host"),
    [
        pytest.param(cancel, 1, NEVER, "Cancelled", True, id="cancelled"),
        pytest.param(terminate, 1, NEVER, "Crashed", False, id="terminated"),
        pytest.param(kill_flow, 1, OFTEN, "Crashed", True, id="flow-killed"),
        pytest.param(kill_worker, 1, NEVER, "Crashed", True, id="worker-killed"),
        pytest.param(terminate_worker, 1, OFTEN, "Crashed", True, id="worker-terminated"),
        pytest.param(lose_host, 1, OFTEN, "Crashed", False, id="host-lost"),
        pytest.param(kill_rank, 2, OFTEN, "Failed", True, id="rank-killed"),
        pytest.param(cancel, 2, NEVER, "Cancelled", False, id="ranks-cancelled"),
    ],
)
@pytest.mark.usefixtures("afresh")
def test_a_disturbed_run_leaves_nothing_behind_and_the_next_one_goes_on(
    stack: Running,
    undisturbed: Callable[[int], str],
    disturb: Callable[[Disturbed], None],
    processes: int,
    checkpoint_every: int,
    state: str,
    same_host: bool,
) -> None:
    expected = undisturbed(processes)
    asked = parameters(processes, checkpoint_every)
    run = stack.start("forgetting/forgetting", **asked)
    it: Disturbed = until(lambda: training(stack, run), "the training is under way")
    disturb(it)
    began = time.monotonic()
    until(lambda: None if it.left(it.computing) else True, "the step has stopped", STOP_SECONDS)
    stopped = time.monotonic() - began
    until(lambda: None if it.left(it.groups) else True, "no process is left", GONE_SECONDS)
    gone = time.monotonic() - began
    ended = stack.finished(run, STATE_SECONDS)
    over = time.monotonic() - began
    assert ended.state_name == state, ended.state
    until(lambda: None if held(stack) else True, "slot and lease are free", STATE_SECONDS - over)
    free = time.monotonic() - began
    (fingerprint,) = names(stack, f"{TRAINING}/forget")
    kept = json.loads(objects(stack).read(f"{TRAINING}/forget/{fingerprint}.json"))

    stack.cli("up", "--gpu-runs", str(GPU_RUNS))
    if not same_host:
        shutil.rmtree(stack.folder / "state")
    again = stack.finished(stack.start("forgetting/forgetting", **asked))
    assert again.state_name == "Completed", again.state
    step = resumed(stack, again)
    print(
        f"\n{disturb.__name__}, {processes} ranks: step stopped after {stopped:.1f} s, all gone {gone:.1f} s,"
        f" {ended.state} {over:.1f} s, slot and lease free {free:.1f} s, resumed after optimizer step {step}"
    )
    assert step >= kept["optimizer_step"] >= STEPS_BEFORE - OFTEN
    assert checkpoint(stack) == expected
    assert names(stack, TRAINING) == []
    # MLflow has heard of the end from the run itself, or from the next one
    assert mlflow_status(stack, run) in ("FAILED", "KILLED")
    assert mlflow_status(stack, again) == "FINISHED"
    assert running_in_mlflow(stack) == []
