"""The books of a run: what it opens before it walks the DAG, and what it writes down when it has ended."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from prefect.runtime import flow_run

from flows.display import headline_columns
from flows.outcome import Outcome
from forgetting_core.comparison import PAGE_FILE
from forgetting_core.config import Recipe, identity
from infra.curves import CurveSender
from infra.digests import DigestCache
from infra.launch import Launcher
from infra.lease import Leases
from infra.lineage import EXPERIMENT, Lineage, Produced
from infra.objects import StoreError
from infra.provenance import provenance
from infra.settings import Settings
from infra.store import Store
from infra.urls import open_objects
from tasks.context import CURRENT, LAUNCHED, LISTENER, PRELOAD, RunContext
from tasks.records import numbers
from tasks.report_page import show_report
from tasks.spec import StepResult

DRAIN_SECONDS = 10.0
"""How long the end of a run may wait until MLflow has the last points of the curves."""
logger = logging.getLogger(__name__)


@contextmanager
def opened(
    recipe: Recipe,
    settings: Settings,
    *,
    command: str = "run",
    variant: str | None = None,
    params: Mapping[str, object] | None = None,
    member: str | None = None,
) -> Iterator[RunContext]:
    """A run: connected to the store and the lineage, the one that steps find; recorded as failed by an exception.

    `variant` is what is special about the run, by default how tokens are chosen; `params` go with it. `member`
    tells it from others of a comparison.
    """
    if variant is None:
        variant, params = recipe.partition.rule, _told(recipe)
    context = _open_context(recipe, settings, command, " ".join(filter(None, [variant, member])), params or {})
    token = CURRENT.set(context)
    LAUNCHED.get()(context.launcher)
    try:
        yield context
    except BaseException:
        record_failure(context)
        raise
    finally:
        CURRENT.reset(token)


def _open_context(
    recipe: Recipe, settings: Settings, command: str, variant: str, params: Mapping[str, object]
) -> RunContext:
    made_by = provenance()
    lineage = Lineage.start(
        settings.tracking_uri,
        experiment=EXPERIMENT,
        recipe=recipe.name,
        variant=variant,
        params=params,
        tags={
            "mlflow.source.name": f"forgetting {command} {recipe.name}",
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
        leases=Leases(objects, settings.lease_ttl, str(flow_run.id), lineage.run_id),
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


def _told(recipe: Recipe) -> dict[str, str]:
    """What of the recipe the pipeline run and the model's version state at a glance."""
    chosen = {name: getattr(recipe.partition, name) for name in ("rho", "threshold")}
    told = {name: value for name, value in chosen.items() if value is not None}
    if recipe.partition.labelling != "influence":
        told["labelling"] = recipe.partition.labelling
    return {**told, "objective": recipe.forget.objective, "seed": str(recipe.forget.seed)}


def record_success(recipe: Recipe, context: RunContext, outcome: Outcome, *, current: bool) -> None:
    """The run completed: its final model is registered, and if `current` the run becomes the recipe's head."""
    states = [result.state for result in outcome.steps.values()]
    values = numbers(outcome.metrics)
    headline = [f"forget/{task}/{name}" for task, name in headline_columns([outcome.metrics["forget"]])]
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
    kinds = [fault["kind"] for fault in outcome.faults]
    model_tags = _told(recipe) | ({"warnings": ", ".join(kinds)} if kinds else {})
    record = context.run_record("FINISHED", metrics=metrics, headline=headline, model_tags=model_tags)
    context.store.record_run(context.flow_run_id, record)
    if current:
        context.store.write_head(recipe.name, record)
    final = outcome.steps["forget"].ref
    _end(
        context,
        "FINISHED",
        metrics=metrics,
        headline=headline,
        final_model=Produced("checkpoint", "model", final.uri, final.digest),
        model_tags=model_tags,
        current=current,
    )
    show_report(context.store, context.lineage, outcome.steps["report"].ref.uri)


def record_comparison(context: RunContext, result: StepResult) -> None:
    """The comparison completed: its page and its differences are what MLflow shows of it."""
    metrics = numbers({"difference": result.summary["differences"]})
    context.store.record_run(context.flow_run_id, context.run_record("FINISHED", metrics=metrics))
    _end(context, "FINISHED", metrics=metrics)
    show_report(context.store, context.lineage, result.ref.uri, PAGE_FILE)


def record_failure(context: RunContext) -> None:
    """The run ended early: what it has done is kept, and MLflow hears how it ended."""
    try:
        context.store.record_run(context.flow_run_id, context.run_record("FAILED"))
    except StoreError as error:
        logger.warning("what the failed run has done is not recorded: %s", error)
    _end(context, "FAILED")


def _end(context: RunContext, status: Literal["FINISHED", "FAILED"], **described: Any) -> None:
    """Tell MLflow, as described at `Lineage.finish`; what it does not hear now, it hears in the next run."""
    context.curves.drain(DRAIN_SECONDS)
    summary = {"recipe": identity(context.recipe), "store": context.store.root}
    context.lineage.finish(status, summary=summary, **described)
    context.curves.end(status, recorded=context.lineage.closed)
