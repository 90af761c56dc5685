"""The flow: walks the DAG (`flows/dag.py`) by submitting one Prefect task per step, and records what came out."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.bookkeeping import open_context, record_failure, record_success
from flows.dag import Input, Node, models_of, walk
from flows.outcome import Outcome, StepFailedError
from flows.recipes import find_recipe
from flows.sources import RecipeSources
from flows.termination import end_with_worker, ignore_further_signals, is_deployed
from forgetting_core.config import Recipe
from forgetting_core.recipe import load_recipe
from infra.settings import Settings
from infra.sources import Sources
from tasks.context import CURRENT, LAUNCHED, RunContext
from tasks.source import CodeIdentity, identified
from tasks.spec import StepCall, StepResult, StepSpec
from tasks.step import RegeneratedError, as_task

MAX_WAITING_STEPS = 64
"""Threads of the flow: a step that waits for its inputs occupies one."""
logger = logging.getLogger(__name__)


def _run_name() -> str:
    """The recipe and what is special about this run."""
    given = flow_run.parameters  # without those left at their defaults, in a deployed run
    upstream = ["upstream"] if given.get("upstream_only") else []
    return " ".join([given["recipe"], *(given.get("overrides") or []), *upstream])


@flow(
    name="forgetting",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_WAITING_STEPS),  # type: ignore[arg-type]
    persist_result=False,
)
def forgetting(
    recipe: str,
    overrides: list[str] | None = None,
    store: str | None = None,
    code_identity: CodeIdentity = "version",
    upstream_only: bool = False,
) -> Outcome:
    """Run one recipe: every step that is not in the store yet.

    Raises `InputError` for a wrong recipe, `StepFailedError` when a step fails.

    Args:
        recipe: Name of a built-in recipe such as `demo`, or the path of a YAML file on the worker.
        overrides: Changes of the recipe's fields, such as `partition.rho=0.5`.
        store: A folder, or `s3://bucket/prefix`; by default the one of FORGETTING_STORE.
        code_identity: With `source`, a step whose source code has changed runs again.
        upstream_only: Only as far as the scores, which no ρ changes; warms the store for a sweep.
    """
    end_with_worker()
    loaded = load_recipe(find_recipe(recipe), overrides or [])
    settings = Settings.from_environment(store=store, work_dir=loaded.execution.work_dir)
    context = open_context(loaded, settings, variant="upstream" if upstream_only else None)
    token = CURRENT.set(context)
    LAUNCHED.get()(context.launcher)
    try:
        outcome = _walk(loaded, context, settings, code_identity, upstream_only=upstream_only)
        record_success(loaded, context, outcome)
    except BaseException:
        record_failure(context)
        raise
    finally:
        CURRENT.reset(token)
    return outcome


class PrefectWalker(RecipeSources):
    """Submits every step; Prefect waits for its inputs."""

    def __init__(self, context: RunContext, settings: Settings, code_identity: CodeIdentity) -> None:
        super().__init__(Sources(context.digests, settings.work_dir / "raw", fetch=True))
        self._code_identity = code_identity
        self.futures: dict[str, PrefectFuture[StepResult]] = {}
        self._tasks: dict[str, Any] = {}

    def step(self, call: StepCall, inputs: Mapping[str, Input]) -> Node:
        """See `Walker.step`."""
        values = {
            name: (value.handle, value.part) if isinstance(value, Node) else value for name, value in inputs.items()
        }
        future = self._task(call.spec).submit(identified(call, self._code_identity), values)
        self.futures[call.label] = future
        return Node(future)

    def _task(self, spec: StepSpec) -> Any:
        return self._tasks.setdefault(spec.name, as_task(spec))


def _walk(
    recipe: Recipe,
    context: RunContext,
    settings: Settings,
    code_identity: CodeIdentity,
    *,
    upstream_only: bool = False,
) -> Outcome:
    """Run every step; from the start again (all that is done is a hit) when an evicted one came out differently."""
    while True:
        walker = PrefectWalker(context, settings, code_identity)
        try:
            walk(recipe, walker, upstream_only=upstream_only)
            return _collect(walker, context)
        except TerminationSignal:
            ignore_further_signals()
            context.launcher.stop(within=settings.stop_seconds if is_deployed() else None)
            _wait(walker)
            raise
        except StepFailedError as error:
            if not isinstance(error.__cause__, RegeneratedError):
                raise
            logger.warning("%s; the steps below it are looked up again", error.__cause__)


def _collect(walker: PrefectWalker, context: RunContext) -> Outcome:
    """Wait for every step. Raises `StepFailedError` from the first failure that is no consequence of another."""
    _wait(walker)
    outcome = Outcome(
        context.flow_run_id,
        context.lineage.run_id,
        context.store.root,
        {label: context.used[label] for label in walker.futures if label in context.used},
        context.lineage.ui_command(),
        models_of(context.recipe),
    )
    for label, future in walker.futures.items():
        if future.state.is_failed() or future.state.is_crashed():
            cause: Any = future.result(raise_on_failure=False)
            raise StepFailedError(label, outcome) from cause
    return outcome


def _wait(walker: PrefectWalker) -> None:
    for future in walker.futures.values():
        future.wait()
