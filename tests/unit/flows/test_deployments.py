"""`prefect.yaml`: what `prefect deploy --all` would register, looked at without a server."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow
from prefect.settings import Settings
from prefect.utilities.callables import parameter_schema

from flows.forgetting import forgetting
from flows.pool_compare import pool_compare
from flows.pool_group import RUN, UPSTREAM
from flows.pool_sweep import pool_sweep
from infra.settings import GPU_SLOT_VARIABLE
from infra.setup_automations import FLOWS
from infra.setup_prefect import GPU_SLOT, POOLS

PROJECT = Path(__file__).resolve().parents[3]
ENTRYPOINTS: dict[str, Flow[Any, Any]] = {
    "flows/forgetting.py:forgetting": forgetting,
    "flows/pool_sweep.py:pool_sweep": pool_sweep,
    "flows/pool_compare.py:pool_compare": pool_compare,
}
DOCUMENT = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
DEPLOYMENTS = {item["name"]: item for item in DOCUMENT["deployments"]}


def deployed(name: str) -> Flow[Any, Any]:
    return ENTRYPOINTS[DEPLOYMENTS[name]["entrypoint"]]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_run_form_describes_every_parameter_and_knows_the_given_ones(name: str) -> None:
    schema = parameter_schema(deployed(name))
    assert schema.properties.keys() == inspect.signature(deployed(name).fn).parameters.keys()
    assert [name for name, field in schema.properties.items() if not field.get("description")] == []
    assert DEPLOYMENTS[name]["parameters"].keys() <= schema.properties.keys()


def test_no_schedule_is_on_by_default() -> None:
    schedules = [item for deployment in DEPLOYMENTS.values() for item in deployment.get("schedules", [])]
    assert schedules
    assert not any(schedule["active"] for schedule in schedules)


def test_pools_limit_and_automations_are_those_that_setup_makes() -> None:
    for deployment in DEPLOYMENTS.values():
        pool = deployment["work_pool"]
        environment = pool["job_variables"]["env"]
        assert pool["name"] in POOLS
        assert environment.get(GPU_SLOT_VARIABLE) == (GPU_SLOT if pool["name"] == "gpu" else None)
        assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert {deployed(name).name for name in DEPLOYMENTS} == set(FLOWS)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_prefect_knows_every_setting_that_a_deployment_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = DEPLOYMENTS[name]["work_pool"]["job_variables"]["env"]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    understood = Settings().to_environment_variables(exclude_unset=True)
    assert {variable for variable in environment if variable.startswith("PREFECT_")} <= understood.keys()


def test_the_sweep_starts_deployments_that_are_there() -> None:
    assert {RUN, UPSTREAM} <= {f"{deployed(name).name}/{name}" for name in DEPLOYMENTS}
