"""The only wrapper: a step of the DAG as a Prefect task.

Look up the commit; or else compute in a process of its own, publish the artifact, commit. The commit is the one
truth about caching: Prefect's result cache is off for these tasks, and a hit is the state `Completed`, named
`Cached`, so that Prefect shows it as usual.
"""

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from forgetting_core.errors import Interrupted
from infra.commits import Commit, Input, Output
from infra.fingerprint import fingerprint as fingerprint_of
from infra.fingerprint import step_payload
from infra.launch import StoppedError
from infra.lineage import Produced
from infra.manifest import Artifact
from infra.objects import StoreError
from infra.sources import Ref
from tasks.child import Job, run_job
from tasks.context import CURRENT, RunContext
from tasks.spec import StepCall, StepResult, StepSpec
from tasks.watch import Watch

logger = logging.getLogger(__name__)
InputValue = Ref | tuple[StepResult, str | None] | None


def as_task(spec: StepSpec) -> Any:
    """The Prefect task of one kind of step; submit it with a `StepCall` and its inputs."""

    @task(name=spec.name, cache_policy=NO_CACHE, persist_result=False, task_run_name="{call.label}")
    def step(call: StepCall, inputs: dict[str, InputValue]) -> StepResult | State[StepResult]:
        return run_step(call, resolve_inputs(inputs))

    return step


def resolve_inputs(inputs: dict[str, InputValue]) -> dict[str, Ref]:
    """The content behind each input; inputs that are absent (no validation split, no checkpoint) drop out."""
    resolved = {
        name: value[0].output(value[1]) if isinstance(value, tuple) else value for name, value in inputs.items()
    }
    return {name: ref for name, ref in resolved.items() if ref is not None}


def run_step(call: StepCall, inputs: dict[str, Ref]) -> StepResult | State[StepResult]:
    """One step: a hit, or the computation and its commit. Raises what the computation or the store raises."""
    context = CURRENT.get()
    digests = {name: ref.digest for name, ref in inputs.items()}
    payload = step_payload(call.spec.name, call.spec.version, call.identity, digests)
    fingerprint = fingerprint_of(payload)
    known = context.store.lookup(call.spec.name, fingerprint)
    if known is not None:
        return _hit(context, call, known, inputs)
    run_id = context.lineage.start_step(
        call.label, inputs=_produced(inputs), params=_params(call), fingerprint=fingerprint, mirror=_mirror(call)
    )
    try:
        commit = _compute(context, call, payload, fingerprint, inputs, run_id)
    except BaseException:
        context.lineage.finish_step(run_id, status="FAILED")
        context.listener(call.label, {"kind": "failed"})
        raise
    result = _result(call, commit, "ran", run_id)
    context.lineage.finish_step(
        run_id, outputs=_outputs(result), metrics=numbers(commit.summary), seconds=result.seconds
    )
    return _used(context, call, commit, result)


def _hit(context: RunContext, call: StepCall, commit: Commit, inputs: dict[str, Ref]) -> State[StepResult]:
    if not context.store.exists(commit.uri):
        raise StoreError(
            f"{call.label}: the artifact {commit.uri} is gone, but its commit {commit.fingerprint} is still there; "
            f"delete v1/commits/{commit.step}/{commit.fingerprint}.json to compute it again"
        )
    producer = commit.provenance.get("mlflow_run_id")
    result = _result(call, commit, "cached", producer)
    context.lineage.step(
        call.label,
        inputs=_produced(inputs),
        outputs=_outputs(result),
        params=_params(call),
        metrics=numbers(commit.summary),
        fingerprint=commit.fingerprint,
        cached=True,
        producer_run_id=producer,
    )
    _used(context, call, commit, result)
    return Completed(name="Cached", message=f"{call.label} is in the store: {commit.uri}", data=result)


def _compute(
    context: RunContext,
    call: StepCall,
    payload: dict[str, Any],
    fingerprint: str,
    inputs: dict[str, Ref],
    run_id: str | None,
) -> Commit:
    """Compute in a child process, publish, commit; scratch goes away only when the commit stands."""
    out = context.output_dir(call.spec.name, fingerprint)
    work = context.attempt_dir(call.spec.name, fingerprint)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    job = Job(
        compute=call.spec.compute,
        config=dict(call.config),
        inputs={name: _stage(context, ref) for name, ref in inputs.items()},
        digests=dict(payload["inputs"]),
        out=out,
        work=work,
        execution=context.execution,
    )

    watch = Watch(context, call.label, run_id)
    try:
        summary = context.launcher.run(run_job, job, watch)
    except Interrupted:
        # Prefect would take a BaseException for a crash and hide it
        raise StoppedError(f"{call.label}: interrupted, its progress is saved") from None
    watch.send_curves()
    artifact = context.store.publish(call.spec.name, out)
    commit = context.store.commit(
        Commit(
            step=call.spec.name,
            fingerprint=fingerprint,
            payload=payload,
            artifact=artifact.uri.removeprefix(f"{context.store.root}/"),
            digest=artifact.digest,
            bytes=artifact.bytes,
            outputs=_parts(call.spec, artifact),
            inputs={name: Input(digest=ref.digest, uri=ref.uri) for name, ref in inputs.items()},
            summary=summary,
            provenance={
                **context.provenance,
                "label": call.label,
                "execution": context.execution.model_dump(),
                "started": watch.started.isoformat(timespec="seconds"),
                "seconds": round((datetime.now(UTC) - watch.started).total_seconds(), 3),
                "mlflow_run_id": run_id,
            },
        )
    )
    if commit.adopted:
        logger.warning("%s: another run committed this step first; its artifact is used", call.label)
    shutil.rmtree(out)
    shutil.rmtree(work, ignore_errors=True)
    return commit


def _parts(spec: StepSpec, artifact: Artifact) -> dict[str, Output]:
    present = {path for entry in artifact.files for path in spec.parts if entry.path.startswith(f"{path}/")}
    parts = {path: artifact.part(path) for path in sorted(present)}
    return {name: Output(path=part.path, digest=part.digest, bytes=part.bytes) for name, part in parts.items()}


def _stage(context: RunContext, ref: Ref) -> tuple[Path, ...]:
    return ref.local or (context.store.stage(ref.uri, ref.digest, context.staged_dir, context.digests),)


def _result(call: StepCall, commit: Commit, state: str, run_id: str | None) -> StepResult:
    spec = call.spec
    parts = {
        name: Ref(commit.output_uri(name), output.digest, spec.part_kinds.get(name, "data"), produced_by=run_id)
        for name, output in commit.outputs.items()
    }
    ref = Ref(commit.uri, commit.digest, spec.kind, produced_by=run_id)
    seconds = float(commit.provenance["seconds"])
    return StepResult(call.label, spec.name, state, commit.fingerprint, ref, parts, commit.summary, seconds)


def _used(context: RunContext, call: StepCall, commit: Commit, result: StepResult) -> StepResult:
    context.used[call.label] = result
    context.listener(call.label, {"kind": result.state, "result": result})
    return result


def _produced(inputs: dict[str, Ref]) -> list[Produced]:
    return [Produced(name, ref.kind, ref.uri, ref.digest) for name, ref in inputs.items()]


def _outputs(result: StepResult) -> list[Produced]:
    named = result.parts or {"checkpoint" if result.ref.kind == "model" else result.label: result.ref}
    return [Produced(name, ref.kind, ref.uri, ref.digest) for name, ref in named.items()]


def _params(call: StepCall) -> dict[str, Any]:
    """The step's identity config as flat MLflow params, such as `partition.rho`."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                add(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    add("", call.identity)
    return flat


def _mirror(call: StepCall) -> str | None:
    """The main fine-tune's curves keep their plain names on the pipeline run, so that a sweep overlays them."""
    return "" if call.label == "forget" else None


def numbers(summary: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a summary as flat MLflow metrics, such as `rows/train`."""
    if isinstance(summary, dict):
        return {
            key: value
            for name, item in summary.items()
            for key, value in numbers(item, f"{prefix}/{name}" if prefix else name).items()
        }
    if isinstance(summary, int | float) and not isinstance(summary, bool):
        return {prefix: float(summary)}
    return {}
