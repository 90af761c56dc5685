"""The local team stack as a user has it: up, deployed runs, a schedule, a sweep, a dead worker, down."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from mlflow import MlflowClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.concurrency.sync import concurrency
from prefect.states import Pending

from infra.setup_automations import HAND_OUT, hand_out_again
from infra.store import open_store
from tests.stack import GPU_RUNS, PROJECT, Running, marked, most_at_once, until
from tests.webhook import webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PROCESSES = {"seaweedfs", "mlflow", "prefect", "gpu-worker", "cpu-worker"}
EVALUATED = {f"evaluate[{model},{task}]" for model in ("ignore", "forget") for task in ("skills", "held_out")}
SEES_RHO = {"partition", "forget[ignore]", "forget", *EVALUATED, "report"}
FAILS = "0"
"""No positive token: nothing to train the baseline `ignore` on."""
LATE_RUNS_LOOP_SECONDS = 5
"""How often the server looks for runs that are late, if it does."""
SCHEDULER_LOOP = timedelta(seconds=60)
"""How often the server looks for schedules whose runs it has to make."""


@pytest.fixture(scope="module")
def first(stack: Running) -> FlowRun:
    """The first run of `nano` on the pool."""
    return stack.finished(stack.start("forgetting/forgetting", recipe="nano"))


def test_a_stack_that_is_up_is_left_alone(stack: Running) -> None:
    before = stack.processes()
    assert before.keys() == PROCESSES
    assert all(item["healthy"] for item in before.values())
    stack.cli("up", "--gpu-runs", str(GPU_RUNS))
    assert {name: item["pid"] for name, item in stack.processes().items()} == {
        name: item["pid"] for name, item in before.items()
    }


def test_runs_that_wait_for_their_turn_are_left_alone_by_the_server(stack: Running) -> None:
    """It would mark each of them late, all at once, which its database does not stand."""
    stack.client.update_work_pool("gpu", WorkPoolUpdate(is_paused=True))
    run = stack.start("forgetting/forgetting", at=datetime.now(UTC) - timedelta(hours=1), recipe="nano")
    try:
        time.sleep(3 * LATE_RUNS_LOOP_SECONDS)
        assert stack.client.read_flow_run(run.id).state_name == "Scheduled"
    finally:
        stack.client.delete_flow_run(run.id)
        stack.client.update_work_pool("gpu", WorkPoolUpdate(is_paused=False))


def test_a_run_whose_worker_died_before_it_began_is_taken_by_another(stack: Running) -> None:
    """Nobody would look at it again, since a worker has it."""
    (automation,) = stack.client.read_automations_by_name(HAND_OUT)
    stack.client.update_automation(automation.id, hand_out_again(within=timedelta(seconds=60)))
    stack.client.update_work_pool("gpu", WorkPoolUpdate(is_paused=True))
    run = stack.start("forgetting/forgetting", recipe="nano")
    stack.client.set_flow_run_state(run.id, Pending())
    stack.client.update_work_pool("gpu", WorkPoolUpdate(is_paused=False))
    assert stack.finished(run).state_name == "Completed"
    stack.client.update_automation(automation.id, hand_out_again())


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_secrets_are_the_users_alone_and_nobody_else_can_connect(stack: Running) -> None:
    secret = stack.environment["AWS_SECRET_ACCESS_KEY"]
    assert oct(stack.folder.stat().st_mode & 0o777) == "0o700"
    for path in stack.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 10**6 and secret.encode() in path.read_bytes():
            assert oct(path.stat().st_mode & 0o777) == "0o600", path
    processes = marked(stack.folder)
    assert len(processes) >= len(PROCESSES)
    assert not [process for process in processes if secret in " ".join(process.cmdline())]
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_a_worker_takes_a_deployed_run_and_completes_it(stack: Running, first: FlowRun) -> None:
    assert first.state_name == "Completed", first.state
    assert set(stack.steps(first).values()) == {"Completed"}


def test_another_rho_finds_the_steps_above_cached(stack: Running, first: FlowRun) -> None:
    run = stack.finished(stack.start("forgetting/forgetting", recipe="nano", overrides=["partition.rho=0.5"]))
    assert run.state_name == "Completed", run.state
    steps = stack.steps(run)
    assert steps.keys() == stack.steps(first).keys()
    assert {name for name, state in steps.items() if state == "Completed"} == SEES_RHO
    assert {state for name, state in steps.items() if name not in SEES_RHO} == {"Cached"}


def test_a_schedule_fires_and_a_cached_run_waits_for_no_gpu(stack: Running, first: FlowRun) -> None:
    deployment = stack.client.read_deployment_by_name("forgetting/forgetting")
    assert [schedule.active for schedule in deployment.schedules] == [False]
    soon = IntervalSchedule(interval=timedelta(days=1), anchor_date=datetime.now(UTC) + 1.5 * SCHEDULER_LOOP)
    with concurrency("gpu-slot", strict=True):
        (schedule,) = stack.client.create_deployment_schedules(deployment.id, [(soon, True)])
        stack.client.request(
            "PATCH",
            "/deployments/{id}/schedules/{schedule_id}",
            path_params={"id": deployment.id, "schedule_id": schedule.id},
            json={"parameters": {"recipe": "nano"}},
        )
        ours = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment.id]}})

        def fired() -> FlowRun | None:
            runs = stack.client.read_flow_runs(flow_run_filter=ours, deployment_filter=None)
            return next((run for run in runs if run.auto_scheduled and run.start_time), None)

        run = stack.finished(until(fired, "the schedule fires"))
    stack.client.delete_deployment_schedule(deployment.id, schedule.id)
    assert run.parameters["recipe"] == "nano"
    assert run.state_name == "Completed", run.state
    assert set(stack.steps(run).values()) == {"Cached"}


@pytest.fixture
def told(stack: Running) -> Iterator[list[str]]:
    """What the team's webhook is told, once `infra.setup` has been given it."""
    with webhook("team") as heard:
        setup = [sys.executable, "-m", "infra.setup", "--notify", "webhook/team"]
        subprocess.run(setup, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        yield heard


def test_a_sweep_computes_upstream_once_and_reports_the_rho_that_fails(stack: Running, told: list[str]) -> None:
    store = open_store(stack.environment["FORGETTING_STORE"])
    shared = ("split", "score")
    before = {step: len(list(store.commits(step))) for step in shared}
    rhos = ["0.6", FAILS, "0.4"]
    parent = stack.finished(stack.start("sweep/sweep", recipe="nano", rhos=rhos, overrides=["split.seed=7"]))

    made = {step: len(list(store.commits(step))) - before[step] for step in shared}
    assert made == {"split": 1, "score": 2}
    of_parent = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
    children = {run.name: run for run in stack.client.read_flow_runs(flow_run_filter=of_parent)}
    assert {name: run.state_name for name, run in children.items()} == {
        "nano split.seed=7 upstream": "Completed",
        'nano split.seed=7 partition.rho="0.6"': "Completed",
        'nano split.seed=7 partition.rho="0"': "Failed",
        'nano split.seed=7 partition.rho="0.4"': "Completed",
    }
    assert parent.state_name == "Failed"
    message = parent.state.message if parent.state else None
    assert message and "1 of 3 runs did not complete: ρ = 0: " in message
    assert "forget[ignore] failed: " in message
    assert parent.work_pool_name == "cpu"
    assert {run.work_pool_name for run in children.values()} == {"gpu"}
    assert most_at_once(list(children.values())) <= GPU_RUNS
    # a message may come twice
    until(lambda: True if len(set(told)) == 2 else None, "the webhook is told of the child and of the sweep")
    assert all("is Failed" in text and "forget[ignore] failed" in text for text in told)


def test_a_comparison_trains_each_seed_on_the_gpu_pool_and_leaves_its_page_in_mlflow(stack: Running) -> None:
    parent = stack.finished(
        stack.start("compare/compare", recipe="nano", seeds=[42, 5], models=["base", "sft", "ignore"])
    )
    assert parent.state_name == "Completed", parent.state
    assert parent.work_pool_name == "cpu"
    of_parent = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
    children = stack.client.read_flow_runs(flow_run_filter=of_parent)
    assert [run.state_name for run in children] == ["Completed"] * 3
    assert stack.steps(parent)["compare"] == "Completed"
    (commit,) = open_store(stack.environment["FORGETTING_STORE"]).commits("compare")
    assert {name.split(",")[0] for name in commit.inputs} >= {"evaluation:42", "evaluation:5", "curves:5"}
    mlflow = MlflowClient(stack.environment["MLFLOW_TRACKING_URI"])
    experiment = mlflow.get_experiment_by_name("forgetting")
    assert experiment is not None
    chosen = f"tags.prefect_flow_run_id = '{parent.id}' and tags.step = 'pipeline'"
    (run,) = mlflow.search_runs([experiment.experiment_id], chosen)
    assert "comparison.html" in {file.path for file in mlflow.list_artifacts(run.info.run_id)}


def test_up_brings_back_a_worker_that_was_killed(stack: Running) -> None:
    before = stack.processes()
    os.kill(before["gpu-worker"]["pid"], signal.SIGKILL)
    until(lambda: True if stack.processes()["gpu-worker"]["pid"] is None else None, "the worker is gone")
    stack.cli("status", status=1)
    stack.cli("up", "--gpu-runs", str(GPU_RUNS))
    after = stack.processes()
    assert all(item["healthy"] for item in after.values())
    assert {name for name in PROCESSES if after[name]["pid"] != before[name]["pid"]} == {"gpu-worker"}


def test_down_ends_every_process_even_those_of_a_run_whose_worker_died(stack: Running) -> None:
    run = stack.start("forgetting/forgetting", recipe="nano", overrides=["forget.seed=7"])
    until(lambda: stack.client.read_flow_run(run.id).start_time, "the run starts")
    os.kill(stack.processes()["gpu-worker"]["pid"], signal.SIGKILL)
    stack.cli("down")
    assert marked(stack.folder) == []
    stack.cli("down")
    stack.cli("status", status=1)
    assert not (stack.folder / "env").exists()
