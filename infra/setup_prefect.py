"""Bringing a Prefect server to the wanted state through its client: read what is there, change what differs.

What a person has tuned and the command line does not name stays: limits, a paused automation, a job template.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from infra.errors import RequestError
from infra.setup_automations import HAND_OUT, TELL, crash_silent_runs, hand_out_again, tell_of_failures

POOLS = {
    "gpu": "Runs of recipes: one process each, on a host with GPUs.",
    "cpu": "Sweeps and comparisons: they start runs, wait, and compare what came out.",
}
GPU_SLOT = "gpu-slot"


@dataclass(frozen=True)
class Plan:
    """The wanted state; None: as it is."""

    pool_type: str = "process"
    templates: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    """Base job templates by pool; without one a new pool gets the type's own"""
    gpu_runs: int | None = None
    gpu_slots: int | None = None
    notify: str | None = None
    """`block type/block name`"""


def apply(plan: Plan) -> Iterator[str]:
    """Change what differs from `plan`; a line for everything, `created`, `updated` or `there`.

    Raises `RequestError` without a server at PREFECT_API_URL, and for what contradicts what is there.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise RequestError(
            "PREFECT_API_URL is not set, so pools and automations would go to a server that ends with this command;"
            " set it to your server's, such as http://127.0.0.1:4200/api (`forgetting stack up` starts one)"
        )
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is not None:
            raise RequestError(f"no Prefect server answers at PREFECT_API_URL={url}: {error}")
        telling = tell_of_failures(client, plan.notify) if plan.notify else None
        for name in POOLS:
            limit = plan.gpu_runs if name == "gpu" else None
            yield _line(*_ensure_pool(client, name, plan.pool_type, plan.templates.get(name), limit))
        yield _line(*_ensure_gpu_slot(client, plan.gpu_slots))
        yield _line(*_ensure_automation(client, crash_silent_runs()))
        if plan.pool_type == "process":
            yield _line(*_ensure_automation(client, hand_out_again()))
        else:
            yield _line(*_ensure_no_automation(client, HAND_OUT))
        yield _line(*_ensure_automation(client, telling) if telling else _untold(client))


def missing_of(client: SyncPrefectClient) -> list[str]:
    """What deployments need of the server and `apply` has not made yet."""
    pools = {pool.name for pool in client.read_work_pools()}
    missing = [f"work pool `{name}`" for name in POOLS if name not in pools]
    try:
        client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        missing.append(f"concurrency limit `{GPU_SLOT}`")
    return missing


def _ensure_pool(
    client: SyncPrefectClient, name: str, pool_type: str, template: dict[str, Any] | None, limit: int | None
) -> tuple[str, str]:
    try:
        there = client.read_work_pool(name)
    except ObjectNotFound:
        template = template or _default_template(name, pool_type)
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=pool_type,
                description=POOLS[name],
                base_job_template=template,
                concurrency_limit=limit,
            )
        )
        return "created", _pool_text(name, pool_type, limit)
    if there.type != pool_type:
        raise RequestError(
            f"the work pool `{name}` is there with type {there.type}, not {pool_type}, and a pool's type is for"
            f" good: give --type {there.type}, or delete it first (prefect work-pool delete {name})"
        )
    changes: dict[str, Any] = {}
    if limit is not None and limit != there.concurrency_limit:
        changes["concurrency_limit"] = limit
    if template is not None and template != there.base_job_template:
        changes["base_job_template"] = template
    if changes:
        client.update_work_pool(name, WorkPoolUpdate(**changes))
    state = f"updated ({', '.join(changes)})" if changes else "there"
    return state, _pool_text(name, pool_type, changes.get("concurrency_limit", there.concurrency_limit))


def _default_template(name: str, pool_type: str) -> dict[str, Any]:
    template = asyncio.run(get_default_base_job_template_for_infrastructure_type(pool_type))
    if template is None:
        option = "--base-job-template" if name == "gpu" else "--cpu-base-job-template"
        raise RequestError(
            f"no job template is known here for work pools of type {pool_type}: give one with {option} FILE, or"
            f" install prefect-{pool_type}"
        )
    return template


def _pool_text(name: str, pool_type: str, limit: int | None) -> str:
    return (
        f"work pool {name}: type {pool_type}, {f'{limit} runs' if limit else 'any number of runs'} at the same time"
    )


def _ensure_gpu_slot(client: SyncPrefectClient, slots: int | None) -> tuple[str, str]:
    try:
        there = client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOT, limit=slots or 1))
        return "created", f"concurrency limit {GPU_SLOT}: {slots or 1}"
    if slots is None or slots == there.limit:
        return "there", f"concurrency limit {GPU_SLOT}: {there.limit}"
    client.update_global_concurrency_limit(GPU_SLOT, GlobalConcurrencyLimitUpdate(limit=slots))
    return "updated", f"concurrency limit {GPU_SLOT}: {slots}, before {there.limit}"


def _ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> tuple[str, str]:
    text = f"automation “{wanted.name}”"
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return "created", text
    there = found[0]
    paused = "" if there.enabled else " (paused)"
    compared = {"description", "trigger", "actions"}
    if there.model_dump(include=compared) == wanted.model_dump(include=compared):
        return "there", text + paused
    client.update_automation(there.id, wanted.model_copy(update={"enabled": there.enabled}))
    return "updated", text + paused


def _ensure_no_automation(client: SyncPrefectClient, name: str) -> tuple[str, str]:
    found = client.read_automations_by_name(name)
    for automation in found:
        client.delete_automation(automation.id)
    return "removed" if found else "off", f"automation “{name}”: only for pools of processes"


def _untold(client: SyncPrefectClient) -> tuple[str, str]:
    if client.read_automations_by_name(TELL):
        return "there", f"automation “{TELL}”"
    return "off", f"automation “{TELL}”: give --notify TYPE/NAME"


def _line(state: str, text: str) -> str:
    return f"{state:13s} {text}"
