"""The deployment `sweep`: one flow run per ρ on the GPU pool, started and awaited by a flow that needs no GPU.

What no ρ changes runs first, in a run of its own: otherwise the first runs would all find it missing. `forgetting
sweep` (`flows/sweep.py`) does the same one after the other in a single process.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from prefect.utilities.urls import url_for

from flows.sweep import check_sweep, with_rho
from flows.termination import end_with_worker, ignore_further_signals
from infra.errors import RequestError

RUN, UPSTREAM = "forgetting/forgetting", "forgetting/upstream"
POLL_SECONDS = 3.0
logger = logging.getLogger(__name__)


class ChildrenFailedError(Exception):
    """Runs of the sweep did not complete; the message names them."""


@flow(name="sweep", flow_run_name="{recipe} sweep", persist_result=False)
def pool_sweep(recipe: str, rhos: list[str], overrides: list[str] | None = None, store: str | None = None) -> None:
    """Run a recipe once per ρ on the GPU pool; the steps that do not depend on ρ are computed once, before.

    A ρ that fails does not take the others down. When this run is cancelled, so are the runs that it has started.

    Raises `InputError` for a wrong recipe or ρ, `RequestError` without the deployments, and at the end
    `ChildrenFailedError`.

    Args:
        recipe: Name of a built-in recipe such as `demo`, or the path of a YAML file on the worker.
        rhos: Shares of positive tokens, from 0 to 1, such as 0.3, 0.5 and 0.7.
        overrides: Changes of the recipe's fields, such as `forget.seed=7`.
        store: A folder that all workers share, or `s3://bucket/prefix`; by default the worker's FORGETTING_STORE.
    """
    end_with_worker()
    given = overrides or []
    values = check_sweep(recipe, rhos, given)
    with _children() as started:

        def start(deployment: str, changes: Sequence[str]) -> FlowRun:
            started.append(_start(deployment, {"recipe": recipe, "overrides": list(changes), "store": store}))
            return started[-1]

        upstream = _ended(start(UPSTREAM, given))
        if not _completed(upstream):
            raise ChildrenFailedError(f"no ρ was started, because {_account(upstream)}")
        runs = {rho: start(RUN, with_rho(given, rho)) for rho in values}
        ended = {rho: _ended(run) for rho, run in runs.items()}
    create_markdown_artifact(_table(ended), key="sweep", description=f"{recipe}: one run per ρ")
    failed = [f"ρ = {rho}: {_account(run)}" for rho, run in ended.items() if not _completed(run)]
    if failed:
        raise ChildrenFailedError(f"{len(failed)} of {len(values)} runs did not complete: {'; '.join(failed)}")


def _start(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    try:
        run = run_deployment(deployment, parameters=parameters, timeout=0)
    except ObjectNotFound:
        raise RequestError(
            f"the server has no deployment {deployment}; register it in the checkout:"
            " prefect --no-prompt deploy --all"
        ) from None
    assert isinstance(run, FlowRun)  # a coroutine only where there is an event loop
    return run


def _ended(run: FlowRun) -> FlowRun:
    """The run when it is over; how long it waits for a place in the pool is the pool's affair."""
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(run.id)
            if run.state is not None and run.state.is_final():
                logger.info(_account(run))
                return run
            time.sleep(POLL_SECONDS)


@contextmanager
def _children() -> Iterator[list[FlowRun]]:
    """The runs started in this block; those that are not over when it is left by an exception are cancelled."""
    started: list[FlowRun] = []
    try:
        yield started
    except BaseException:
        ignore_further_signals()
        with get_client(sync_client=True) as client:
            for run in started:
                state = client.read_flow_run(run.id).state
                if state is None or not state.is_final():
                    client.set_flow_run_state(run.id, Cancelling(message="the sweep that started it has ended"))
        raise


def _completed(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_completed()


def _account(run: FlowRun) -> str:
    assert run.state is not None  # it is over
    return f"{run.name}: {run.state.name}" + (f" ({run.state.message})" if run.state.message else "")


def _table(ended: dict[str, FlowRun]) -> str:
    lines = ["| ρ | state | run |", "|---|---|---|"]
    for rho, run in ended.items():
        url = url_for(run)
        lines.append(f"| {rho} | {run.state and run.state.name} | {f'[{run.name}]({url})' if url else run.name} |")
    return "\n".join(lines)
