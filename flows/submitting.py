"""Steps as Prefect tasks: submitted as a walk of the DAG visits them, and waited for."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture

from flows.dag import Input, Node, models_of
from flows.outcome import Outcome, StepFailedError
from flows.sources import RecipeSources
from flows.termination import ignore_further_signals, is_deployed
from infra.settings import Settings
from infra.sources import Sources
from tasks.context import RunContext
from tasks.source import CodeIdentity, identified
from tasks.spec import StepCall, StepResult, StepSpec
from tasks.step import RegeneratedError, as_task

logger = logging.getLogger(__name__)


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


def run_steps(
    context: RunContext,
    settings: Settings,
    visit: Callable[[PrefectWalker], object],
    code_identity: CodeIdentity = "version",
) -> Outcome:
    """Run all steps that `visit` visits; again (what is done is a hit) when an evicted one came out differently.

    Raises `StepFailedError`.
    """
    while True:
        walker = PrefectWalker(context, settings, code_identity)
        try:
            visit(walker)
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
