"""Flow runs that a flow starts on the pools: awaited, and cancelled should it end before them.

A flow that waits for hours outlives things that its runs survive too: a Prefect server that is away for a while is
asked again until it answers, and a run that somebody deleted counts as failed.
"""

import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed

from flows.termination import ignore_further_signals
from infra.errors import RequestError

POLL_SECONDS = 3.0
T = TypeVar("T")
logger = logging.getLogger(__name__)


class ChildrenFailedError(Exception):
    """Runs that were started did not complete; the message names them."""


class Children:
    """The runs started in a `with` block; those that are not over when an exception leaves it are cancelled."""

    def __init__(self) -> None:
        self._started: list[FlowRun] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            ignore_further_signals()
            self._cancel_all()

    def start(self, deployment: str, parameters: dict[str, Any]) -> FlowRun:
        """A run of `flow/deployment`. Raises `RequestError` when the server has no such deployment."""
        once = str(uuid.uuid4())  # however often it is asked
        try:
            run = _answered(
                lambda: run_deployment(deployment, parameters=parameters, timeout=0, idempotency_key=once)
            )
        except ObjectNotFound:
            raise RequestError(
                f"the server has no deployment {deployment}; register it in the checkout:"
                " prefect --no-prompt deploy --all"
            ) from None
        assert isinstance(run, FlowRun)  # a coroutine only where there is an event loop
        self._started.append(run)
        return run

    def ended(self, run: FlowRun) -> FlowRun:
        """The run when it is over; how long it waits for a place in its pool is the pool's affair."""
        with get_client(sync_client=True) as client:
            while True:
                found = _answered(lambda: _now(client, run))
                if found.state is not None and found.state.is_final():
                    logger.info(account(found))
                    return found
                time.sleep(POLL_SECONDS)

    def _cancel_all(self) -> None:
        # side by side: a call that fails takes longer than Prefect leaves a run that was asked to end
        with get_client(sync_client=True) as client, ThreadPoolExecutor(max(1, len(self._started))) as threads:
            for run in self._started:
                threads.submit(_cancel, client, run)


def completed(run: FlowRun) -> bool:
    """Whether a run has come to its good end."""
    return run.state is not None and run.state.is_completed()


def account(run: FlowRun) -> str:
    """How a run ended, in a line."""
    assert run.state is not None  # it is over
    return f"{run.name}: {run.state.name}" + (f" ({run.state.message})" if run.state.message else "")


def _now(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    try:
        return client.read_flow_run(run.id)
    except ObjectNotFound:
        gone: State[Any] = Crashed(name="Deleted", message="somebody deleted it on the server")
        return run.model_copy(update={"state": gone})


def _answered(ask: Callable[[], T]) -> T:
    """What the server says, when it does; an outage is told once when it begins, and once when it is over."""
    away_since: float | None = None
    while True:
        try:
            answer = ask()
        except httpx.HTTPError as error:
            if not _is_outage(error):
                raise
            if away_since is None:
                away_since = time.monotonic()
                logger.warning("Prefect's server is away; it is asked until it answers: %r", error)
            time.sleep(POLL_SECONDS)
        else:
            if away_since is not None:
                logger.warning("Prefect's server was away for %.0f s", time.monotonic() - away_since)
            return answer


def _is_outage(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(error, httpx.TransportError)


def _cancel(client: SyncPrefectClient, run: FlowRun) -> None:
    """Whatever becomes of this one must not keep the others from being cancelled."""
    try:
        state = _now(client, run).state
        if state is None or not state.is_final():
            client.set_flow_run_state(run.id, Cancelling(message="the run that started it has ended"))
    except Exception:
        logger.exception("%s could not be cancelled and goes on", run.name)
