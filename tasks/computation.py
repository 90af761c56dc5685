"""From a job to a commit: compute a step in a process of its own, publish its files, let its commit stand."""

import contextlib
import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forgetting_core.config import ExecutionConfig
from forgetting_core.errors import Interrupted, OutOfMemoryError
from infra.commits import Commit, Input, Output
from infra.fingerprint import fingerprint as fingerprint_of
from infra.launch import StoppedError
from infra.manifest import Artifact
from infra.objects import StoreError
from infra.sources import Ref
from infra.training_checkpoints import TrainingCheckpoints
from tasks.child import Job, run_job
from tasks.context import RunContext
from tasks.facts import run_facts
from tasks.gpu_slot import gpu_slot
from tasks.preserve import Preserved
from tasks.ranks import run_in_ranks
from tasks.shards import SHARDS_INPUT
from tasks.source import step_source
from tasks.spec import StepCall, StepSpec
from tasks.watch import Watch

logger = logging.getLogger(__name__)


def compute_and_commit(
    context: RunContext,
    call: StepCall,
    payload: dict[str, Any],
    refs: dict[str, Ref],
    staged: dict[str, tuple[Path, ...]],
    run_id: str | None,
    instead_of: str | None,
) -> Commit:
    """Compute in a child process, publish, commit; scratch goes away only when the commit stands.

    `refs` are the inputs, `staged` their local copies; `instead_of` is the artifact that is gone or not wanted.
    Raises what the computation or the store raises, and `StoppedError` when the run was asked to stop.
    """
    source = step_source(call.spec)  # before the files can change under a long computation
    fingerprint = fingerprint_of(payload)
    with context.attempt_dir(call.spec.name, fingerprint) as attempt:
        out = attempt / "output"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        job = Job(
            compute=call.spec.compute,
            config=dict(call.config),
            inputs=staged,
            digests=dict(payload["inputs"]),
            out=out,
            work=attempt / "work",
            execution=context.execution,
            facts=run_facts(context) if call.spec.about_run else None,
        )
        kept = TrainingCheckpoints(context.store, call.spec.name, fingerprint) if call.spec.trains else None
        try:
            with Watch(context, call, fingerprint, run_id) as watch:
                summary, execution = _compute(context, call, job, watch, kept)
        except Interrupted:
            # Prefect would take a BaseException for a crash and hide it
            raise StoppedError(f"{call.label}: interrupted, its progress is saved") from None
        artifact = context.store.publish(call.spec.name, out)
        record = Commit(
            step=call.spec.name,
            fingerprint=fingerprint,
            payload=payload,
            artifact=artifact.uri.removeprefix(f"{context.store.root}/"),
            digest=artifact.digest,
            bytes=artifact.bytes,
            outputs=_parts(call.spec, artifact),
            inputs={
                name: Input(digest=ref.digest, uri=ref.uri, files=dict(ref.files)) for name, ref in refs.items()
            },
            summary=summary,
            provenance={
                **context.provenance,
                **source.record(),
                "label": call.label,
                "execution": execution.model_dump(),
                "started": watch.started.isoformat(timespec="seconds"),
                "seconds": round((datetime.now(UTC) - watch.started).total_seconds(), 3),
                "mlflow_run_id": run_id,
            },
        )
        commit = _commit(context, call, record, instead_of)
        if kept is not None:
            _discard(kept)
        shutil.rmtree(attempt, ignore_errors=True)
    return commit


def _discard(kept: TrainingCheckpoints) -> None:
    try:
        kept.discard()
    except StoreError as error:  # the commit stands; the garbage collector takes what is left
        logger.warning("a training checkpoint that nobody needs stays in the store: %s", error)


def _compute(
    context: RunContext, call: StepCall, job: Job, watch: Watch, kept: TrainingCheckpoints | None
) -> tuple[dict[str, Any], ExecutionConfig]:
    """The summary, and how it was computed: in a process of its own, and once more if memory runs out.

    Then with a smaller micro-batch, from the last checkpoint on.
    """
    merely_merges = SHARDS_INPUT in job.inputs
    target = run_in_ranks if call.spec.trains and job.execution.processes > 1 else run_job
    while True:
        try:
            with contextlib.ExitStack() as stack:
                if kept is not None:
                    watch.on_checkpoint = stack.enter_context(Preserved(call.label, kept, job.work))
                summary: dict[str, Any] = context.launcher.run(
                    target, job, watch, within=None if merely_merges else gpu_slot(context, call)
                )
                return summary, job.execution
        except OutOfMemoryError as error:
            smaller = job.execution.smaller_micro_batch
            if smaller is None or "execution" in call.identity:  # part of the result
                raise
            logger.warning("%s: %s; going on with execution.micro_batch %d", call.label, error, smaller)
            job = replace(job, execution=job.execution.model_copy(update={"micro_batch": smaller}))


def _commit(context: RunContext, call: StepCall, record: Commit, instead_of: str | None) -> Commit:
    """Commit `record`, in place of a commit whose artifact is gone or is the one not wanted any more."""
    store = context.store
    old = store.lookup(record.step, record.fingerprint)
    if old is None or (old.uri != instead_of and store.exists(old.uri)):
        commit = store.commit(record)
    else:
        commit = store.replace(old, record)
        if commit.digest != old.digest:
            logger.warning(
                "%s: computed again, with other bytes: content digest %s before, %s now; the steps below run again",
                call.label,
                old.digest,
                commit.digest,
            )
    if commit.adopted:
        logger.warning("%s: another run committed this step first; its artifact is used", call.label)
    return commit


def _parts(spec: StepSpec, artifact: Artifact) -> dict[str, Output]:
    present = {path for entry in artifact.files for path in spec.parts if entry.path.startswith(f"{path}/")}
    parts = {path: artifact.part(path) for path in sorted(present)}
    return {name: Output(path=part.path, digest=part.digest, bytes=part.bytes) for name, part in parts.items()}
