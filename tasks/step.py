"""The only wrapper: a step of the DAG as a Prefect task.

Look up the commit; or else take the step's lease, or wait for whoever has it and adopt what comes out; compute in
a process of its own, publish the artifact, commit. The commit is the one truth about caching: Prefect's result
cache is off for these tasks, and a hit is the state `Completed`, named `Cached`, so that Prefect shows it as usual.

Where a commit's artifact is gone, the step is `evicted`: the commit still says which content came out, which is all
that a cached step below needs, so nothing is computed yet. A step that really runs and cannot stage such an input
has it computed again first, there and then (`_restore`), and the commit replaced. Should other bytes come out than
before, steps were looked up by content that no longer exists: `RegeneratedError` has the flow walk again, in which
all that is done is a hit.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.settings import PREFECT_TASKS_REFRESH_CACHE
from prefect.states import Completed

from forgetting_core.errors import InputError
from infra.commits import Commit
from infra.fingerprint import fingerprint as fingerprint_of
from infra.fingerprint import step_payload
from infra.lineage_runs import run_reference
from infra.objects import UnavailableError
from infra.sources import Ref
from infra.staging import ArtifactMissingError
from tasks.computation import compute_and_commit
from tasks.context import CURRENT, RunContext
from tasks.records import numbers, outputs_of, params_of, produced_of, result_of, tags_of
from tasks.shards import SHARDS_INPUT, compute_shards
from tasks.source import code_changes
from tasks.spec import StepCall, StepResult, StepSpec
from tasks.turn import turn

logger = logging.getLogger(__name__)
InputValue = Ref | tuple[StepResult, str | None] | None
Inputs = dict[str, InputValue]


class RegeneratedError(Exception):
    """An evicted artifact was computed again and is not the same; what was looked up by its content is void."""


def as_task(spec: StepSpec) -> Any:
    """The Prefect task of one kind of step; submit it with a `StepCall` and its inputs."""

    @task(
        name=spec.name,
        cache_policy=NO_CACHE,
        persist_result=False,
        task_run_name="{call.label}",
        # how often, and after how long, is for Prefect's settings to say: PREFECT_TASKS_DEFAULT_RETRIES
        retry_condition_fn=_may_pass,
    )
    def step(call: StepCall, inputs: Inputs) -> StepResult | State[StepResult]:
        result = run_step(call, inputs, refresh=_refresh_asked())
        if result.state == "ran":
            return result
        message = f"{call.label} is in the store: {result.ref.uri}"
        return Completed(name=result.state.capitalize(), message=message, data=result)

    return step


def _may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether a failure may be gone by the next attempt: the store's, unlike the recipe's, the data's or ours."""
    return isinstance(state.result(raise_on_failure=False), UnavailableError)


def _refresh_asked() -> bool:
    """Whether Prefect is told to ignore cached results, for this task or for all."""
    run = TaskRunContext.get()
    asked = run.task.refresh_cache if run else None
    return PREFECT_TASKS_REFRESH_CACHE.value() if asked is None else asked


def _ref(value: InputValue) -> Ref | None:
    return value[0].output(value[1]) if isinstance(value, tuple) else value


def _refs(call: StepCall, inputs: Inputs) -> dict[str, Ref]:
    """The content behind each input; optional ones that are absent (no validation split, no checkpoint) drop out.

    Raises `InputError` for a required one that the step before it left out.
    """
    refs = {name: ref for name, value in inputs.items() if (ref := _ref(value)) is not None}
    for name in inputs.keys() - refs.keys() - set(call.spec.optional):
        raise InputError(f"{call.label}: its input `{name}` is empty; the step before it wrote no rows for it")
    return refs


def _payload(call: StepCall, refs: dict[str, Ref]) -> dict[str, Any]:
    digests = {name: ref.digest for name, ref in refs.items()}
    return step_payload(call.spec.name, call.spec.version, call.identity, digests)


def run_step(call: StepCall, inputs: Inputs, *, refresh: bool = False) -> StepResult:
    """One step: a hit, or the computation and its commit; with `refresh` the latter anyway.

    Raises what the computation or the store raises, and `RegeneratedError`.
    """
    context = CURRENT.get()
    context.calls[call.label] = (call, inputs)
    refs = _refs(call, inputs)
    fingerprint = fingerprint_of(_payload(call, refs))
    earlier: StepResult | None = context.used.get(call.label)
    if earlier is not None and earlier.fingerprint == fingerprint and earlier.state != "evicted":
        return earlier
    with _failure_shown(context, call):
        known = context.store.lookup(call.spec.name, fingerprint)
        if known is None or refresh:
            return _produce(context, call, inputs, instead_of=known.uri if known else None, refresh=refresh)
        if context.store.exists(known.uri):
            return _hit(context, call, known, refs, "cached")
        if call.delivered:
            logger.warning("%s: evicted: the artifact %s is gone; computing it again", call.label, known.uri)
            return _produce(context, call, inputs, instead_of=known.uri)
        logger.warning("%s: evicted: the artifact %s is gone; nothing needs it yet", call.label, known.uri)
        return _hit(context, call, known, refs, "evicted")


@contextmanager
def _failure_shown(context: RunContext, call: StepCall) -> Iterator[None]:
    try:
        yield
    except RegeneratedError:
        raise
    except BaseException:
        context.listener(call.label, {"kind": "failed"})
        raise


def _hit(context: RunContext, call: StepCall, commit: Commit, refs: dict[str, Ref], state: str) -> StepResult:
    result = replace(result_of(call, commit, state), code_changes=code_changes(call.spec, commit))
    context.lineage.step(
        call.label,
        inputs=produced_of(refs),
        outputs=outputs_of(result),
        params=params_of(call),
        metrics=numbers(commit.summary),
        tags=tags_of(commit),
        fingerprint=commit.fingerprint,
        cached=True,
        producer_run_id=run_reference(commit),
    )
    return _used(context, call, result)


def _produce(
    context: RunContext, call: StepCall, inputs: Inputs, *, instead_of: str | None, refresh: bool = False
) -> StepResult:
    """Compute and commit, unless somebody else does: then theirs. The artifact `instead_of` is gone or unwanted."""
    refs = _refs(call, inputs)
    step, fingerprint = call.spec.name, fingerprint_of(_payload(call, refs))

    def finished() -> Commit | None:
        commit = context.store.lookup(step, fingerprint)
        good = commit is not None and commit.uri != instead_of and context.store.exists(commit.uri)
        return commit if good else None

    shards = _shards(context, call, inputs, refresh)  # before the lease, so that other runs can take some of them
    with turn(context, call.label, context.leases.candidate(step, fingerprint), finished) as commit:
        if commit is not None:
            return _hit(context, call, commit, refs, "cached")
        refs, staged = _stage_all(context, call, inputs)
        staged |= shards
        run_id = context.lineage.start_step(
            call.label,
            inputs=produced_of(refs),
            params=params_of(call),
            fingerprint=fingerprint,
        )
        try:
            commit = compute_and_commit(context, call, _payload(call, refs), refs, staged, run_id, instead_of)
        except BaseException:
            context.lineage.finish_step(run_id, status="FAILED")
            raise
        result = result_of(call, commit, "ran")
        context.lineage.finish_step(
            run_id,
            outputs=outputs_of(result),
            metrics=numbers(commit.summary),
            seconds=result.seconds,
            tags=tags_of(commit),
        )
        return _used(context, call, result)


def _shards(context: RunContext, call: StepCall, inputs: Inputs, refresh: bool) -> dict[str, tuple[Path, ...]]:
    """The step's shards as an input of it, computed where they are not in the store; nothing when it has none."""
    if call.spec.shards is None or context.execution.score_shards == 1:
        return {}
    refs, staged = _stage_all(context, call, inputs)
    calls = call.spec.shards(call, staged["data"][0], context.execution)

    def leased(shard: StepCall) -> bool:
        return context.leases.holder(shard.spec.name, fingerprint_of(_payload(shard, refs))) is not None

    try:
        paths = compute_shards(context, calls, lambda shard: run_step(shard, inputs, refresh=refresh), leased)
    finally:
        context.drop(shard.label for shard in calls)
    return {SHARDS_INPUT: paths}


def _stage_all(
    context: RunContext, call: StepCall, inputs: Inputs
) -> tuple[dict[str, Ref], dict[str, tuple[Path, ...]]]:
    """Where the inputs are now, and their local copies."""
    refs, staged = {}, {}
    for name, value in inputs.items():
        ref = _ref(value)
        if ref is None:
            continue
        try:
            staged[name] = _stage(context, ref)
        except ArtifactMissingError:
            if not isinstance(value, tuple):
                raise
            ref = _restore(context, value[0], call).output(value[1])
            assert ref is not None  # the content is the same
            staged[name] = _stage(context, ref)
        refs[name] = ref
    return refs, staged


def _stage(context: RunContext, ref: Ref) -> tuple[Path, ...]:
    return ref.local or (context.store.stage(ref.uri, ref.digest, context.staged_dir, context.digests),)


def _restore(context: RunContext, gone: StepResult, needed_by: StepCall) -> StepResult:
    """A step of this run whose artifact is gone, computed again by the thread of the first step that needs it."""
    call, inputs = context.calls[gone.label]
    with context.restoring.setdefault(gone.label, threading.Lock()):
        made: StepResult = context.used[gone.label]
        if made.ref.uri == gone.ref.uri:
            logger.warning("%s: evicted, and %s needs it: computing it again", gone.label, needed_by.label)
            with _failure_shown(context, call):
                made = _produce(context, call, inputs, instead_of=gone.ref.uri)
    if made.ref.digest != gone.ref.digest:
        raise RegeneratedError(
            f"{gone.label} was evicted, and computing it again gave other bytes: content digest {gone.ref.digest}"
            f" before, {made.ref.digest} now"
        )
    return made


def _used(context: RunContext, call: StepCall, result: StepResult) -> StepResult:
    context.use(call.label, result)
    context.listener(call.label, {"kind": result.state, "result": result})
    return result
