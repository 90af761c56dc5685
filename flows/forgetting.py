"""The flow: walks the DAG (`flows/dag.py`) by submitting one Prefect task per step, and records what came out."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect import flow
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows.dag import Input, Node, walk
from flows.recipes import find_recipe
from flows.sources import RecipeSources
from forgetting_core.config import Recipe, identity
from forgetting_core.recipe import load_recipe
from infra.curves import CurveSender
from infra.digests import DigestCache
from infra.launch import Launcher
from infra.lease import Leases
from infra.lineage import EXPERIMENT, Lineage, Produced
from infra.objects import StoreError
from infra.provenance import provenance
from infra.settings import Settings
from infra.sources import Sources
from infra.store import Store
from infra.urls import open_objects
from tasks.context import CURRENT, LAUNCHED, LISTENER, PRELOAD, RunContext
from tasks.records import numbers
from tasks.report_page import show_report
from tasks.source import CodeIdentity, code_warnings, identified
from tasks.spec import StepCall, StepResult, StepSpec
from tasks.step import RegeneratedError, as_task

DRAIN_SECONDS = 10.0
"""How long the end of a run may wait until MLflow has the last points of the curves."""
_NOT_HEADLINE = ("_stderr", "/tokens")
MAX_WAITING_STEPS = 64
"""Threads of the flow: a step that waits for its inputs occupies one."""
logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What a run did, complete or not."""

    flow_run_id: str
    mlflow_run_id: str | None
    store: str
    steps: dict[str, StepResult] = field(default_factory=dict)
    ui_command: str = ""

    @property
    def warnings(self) -> list[str]:
        """Cached steps whose code has changed without a new version."""
        return code_warnings((result.step, label, result.code_changes) for label, result in self.steps.items())

    @property
    def metrics(self) -> dict[str, Any]:
        """{model: {task: {metric: value}}}"""
        return {
            label.removeprefix("evaluate[").removesuffix("]"): result.summary["metrics"]
            for label, result in self.steps.items()
            if label.startswith("evaluate[")
        }


class StepFailedError(Exception):
    """A step failed; `outcome` holds what was done, `__cause__` why."""

    def __init__(self, label: str, outcome: Outcome) -> None:
        super().__init__(label)
        self.label = label
        self.outcome = outcome

    def __str__(self) -> str:
        return f"{self.label} failed: {self.__cause__}"


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
    loaded = load_recipe(find_recipe(recipe), overrides or [])
    settings = Settings.from_environment(store=store, work_dir=loaded.execution.work_dir)
    context = open_context(loaded, settings, upstream_only=upstream_only)
    token = CURRENT.set(context)
    LAUNCHED.get()(context.launcher)
    try:
        outcome = _walk(loaded, context, settings, code_identity, upstream_only=upstream_only)
    except BaseException:
        try:
            context.store.record_run(context.flow_run_id, context.run_record("FAILED"))
        except StoreError as error:
            logger.warning("what the failed run has done is not recorded: %s", error)
        _end(context, "FAILED")
        raise
    finally:
        CURRENT.reset(token)
    _record(loaded, context, outcome)
    return outcome


def _end(context: RunContext, status: Literal["FINISHED", "FAILED"], **described: Any) -> None:
    """Tell MLflow, as described at `Lineage.finish`; what it does not hear now, it hears in the next run."""
    context.curves.drain(DRAIN_SECONDS)
    context.lineage.finish(status, **described)
    context.curves.end(status, recorded=context.lineage.closed)


def open_context(recipe: Recipe, settings: Settings, *, upstream_only: bool = False) -> RunContext:
    """Connect to the store and the lineage."""
    made_by = provenance()
    lineage = Lineage.start(
        settings.tracking_uri,
        experiment=EXPERIMENT,
        recipe=recipe.name,
        variant="upstream" if upstream_only else recipe.partition.rule,
        params={} if upstream_only else _told(recipe),
        tags={
            "mlflow.source.name": f"forgetting run {recipe.name}",
            "mlflow.source.git.commit": made_by["git_commit"],
            "git_dirty": made_by["git_dirty"],
            "host": made_by["host"],
            "prefect_flow_run_id": flow_run.id,
            "prefect_parent_flow_run_id": flow_run.parent_flow_run_id,  # such as a sweep
        },
    )
    curves = CurveSender(settings.state_dir / "curves", settings.tracking_uri, EXPERIMENT, lineage.recover)
    if lineage.run_id is not None:
        curves.begin(recipe.name, lineage.run_id)
    objects = open_objects(settings.store_url)
    return RunContext(
        recipe=recipe,
        store=Store(objects),
        leases=Leases(objects, settings.lease_ttl, str(flow_run.id)),
        lineage=lineage,
        curves=curves,
        launcher=Launcher(recipe.execution.concurrent_steps, PRELOAD),
        digests=DigestCache(settings.digest_cache),
        work_dir=settings.work_dir,
        listener=LISTENER.get(),
        flow_run_id=str(flow_run.id),
        gpu_slot=settings.gpu_slot,
        provenance={**made_by, "prefect_flow_run_id": str(flow_run.id)},
    )


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
        walk(recipe, walker, upstream_only=upstream_only)
        try:
            return _collect(walker, context)
        except StepFailedError as error:
            if not isinstance(error.__cause__, RegeneratedError):
                raise
            logger.warning("%s; the steps below it are looked up again", error.__cause__)


def _collect(walker: PrefectWalker, context: RunContext) -> Outcome:
    """Wait for every step. Raises `StepFailedError` from the first failure that is no consequence of another."""
    try:
        for future in walker.futures.values():
            future.wait()
    except TerminationSignal:  # cancelled, or the machine is wanted back
        context.launcher.stop()
        for future in walker.futures.values():
            future.wait()
        raise
    outcome = Outcome(
        context.flow_run_id,
        context.lineage.run_id,
        context.store.root,
        {label: context.used[label] for label in walker.futures if label in context.used},
        context.lineage.ui_command(),
    )
    for label, future in walker.futures.items():
        if future.state.is_failed() or future.state.is_crashed():
            cause: Any = future.result(raise_on_failure=False)
            raise StepFailedError(label, outcome) from cause
    return outcome


def _told(recipe: Recipe) -> dict[str, str]:
    """What of the recipe the pipeline run and the model's version state at a glance."""
    chosen = {name: getattr(recipe.partition, name) for name in ("rho", "threshold")}
    told = {name: value for name, value in chosen.items() if value is not None}
    if recipe.partition.labelling != "influence":
        told["labelling"] = recipe.partition.labelling
    return {**told, "objective": recipe.forget.objective}


def _record(recipe: Recipe, context: RunContext, outcome: Outcome) -> None:
    """The run completed: with a final model, it becomes the recipe's head, and the model the registered one."""
    states = [result.state for result in outcome.steps.values()]
    values = numbers(outcome.metrics)
    headline = [name for name in values if name.startswith("forget/") and not name.endswith(_NOT_HEADLINE)]
    metrics = {
        **values,
        "steps_ran": float(states.count("ran")),
        "steps_cached": float(states.count("cached")),
    }
    if "partition" in outcome.steps:
        metrics |= numbers({"positive_share": outcome.steps["partition"].summary["positive_share"]})
    if "forget" not in outcome.steps:
        context.store.record_run(context.flow_run_id, context.run_record("FINISHED", metrics=metrics))
        _end(context, "FINISHED", metrics=metrics)
        return
    model_tags = _told(recipe)
    record = context.run_record("FINISHED", metrics=metrics, headline=headline, model_tags=model_tags)
    context.store.record_run(context.flow_run_id, record)
    context.store.write_head(recipe.name, record)
    final = outcome.steps["forget"].ref
    _end(
        context,
        "FINISHED",
        metrics=metrics,
        headline=headline,
        final_model=Produced("checkpoint", "model", final.uri, final.digest),
        model_tags=model_tags,
        summary={"recipe": identity(recipe), "store": context.store.root},
    )
    show_report(context.store, context.lineage, outcome.steps["report"].ref.uri)
