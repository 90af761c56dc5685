"""The end of a comparison: what the runs of its seeds evaluated, put together by a step of its own.

It reads the run records of the store, so it serves runs of this process and of a work pool alike.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.asked import Asked
from flows.bookkeeping import opened, record_comparison
from flows.outcome import Outcome
from flows.submitting import run_steps
from forgetting_core.metrics_file import METRICS_FILE
from forgetting_core.report.curves import model_of
from infra.commits import Commit
from infra.digests import content_digest
from infra.objects import StoreError
from infra.settings import Settings
from infra.sources import Ref
from infra.staging import ArtifactMissingError, appear
from infra.store import Store
from tasks.compare import COMPARE, ComparisonConfig, curves_input, evaluation_input
from tasks.context import RunContext
from tasks.evaluate import EVALUATE, evaluation_of
from tasks.forget import FORGET
from tasks.records import CURVES_FILE
from tasks.spec import StepCall


def conclude(asked: Asked, store: str | None, runs: Mapping[int, str]) -> Outcome:
    """The step `compare` over `runs`, {seed: flow run id}, as an MLflow pipeline run of its own.

    For a flow. Raises `StoreError`, and `StepFailedError` when the step fails.
    """
    recipe = asked.recipe
    settings = Settings.from_environment(store=store, work_dir=recipe.execution.work_dir)
    params = {
        "seeds": ", ".join(map(str, runs)),
        "models": ", ".join(asked.models),
        "against": asked.against,
    }
    with opened(recipe, settings, command="compare", variant="compare", params=params) as context:
        inputs: dict[str, Ref] = {}
        for seed, flow_run_id in runs.items():
            inputs |= _inputs(context, asked, seed, flow_run_id, settings.work_dir / "curves")
        config = ComparisonConfig(recipe=recipe.name, models=list(asked.models), against=asked.against)
        call = StepCall(COMPARE.name, COMPARE, {"comparison": config}, delivered=True)
        outcome = run_steps(context, settings, lambda walker: walker.step(call, inputs))
        record_comparison(context, outcome.steps[COMPARE.name])
    return outcome


def _inputs(context: RunContext, asked: Asked, seed: int, flow_run_id: str, curves_dir: Path) -> dict[str, Ref]:
    """The evaluations of a run, and the curves of its fine-tunes, as inputs of the step."""
    store = context.store
    record: dict[str, Any] = store.read_run(flow_run_id) or {"steps": {}}
    found = {}
    for label, used in record["steps"].items():
        evaluation = evaluation_of(label)
        trained = model_of(label) if used["step"] == FORGET.name else None
        if (evaluation[0] if evaluation else trained) not in asked.models:
            continue
        commit = _commit(store, label, used, flow_run_id)
        if evaluation is not None:
            found[evaluation_input(seed, *evaluation)] = Ref(commit.uri, commit.digest)
        elif trained is not None:
            if (curves := _curves(store, commit, curves_dir)) is not None:
                found[curves_input(seed, trained)] = curves
            else:
                gone = f"no curves of {trained}, seed {seed}: its checkpoint was removed from the store"
                context.listener(COMPARE.name, {"kind": "note", "message": gone})
    if not any(evaluation_of(label) for label in record["steps"]):
        raise StoreError(
            f"{store.root}: the flow run {flow_run_id} (seed {seed}) left no {EVALUATE.name} in it; all runs of a"
            " comparison need the same store"
        )
    return found


def _commit(store: Store, label: str, used: Mapping[str, str], flow_run_id: str) -> Commit:
    commit = store.lookup(used["step"], used["fingerprint"])
    if commit is None:
        raise StoreError(f"{label} of the flow run {flow_run_id}: its commit was deleted meanwhile; run again")
    return commit


def _curves(store: Store, commit: Commit, folder: Path) -> Ref | None:
    """The curves of a checkpoint, which is itself too large to be an input; None when it is gone."""
    try:
        data = store.read_file(commit.uri, CURVES_FILE)
    except ArtifactMissingError:
        return None
    sha256 = hashlib.sha256(data).hexdigest()

    def fill(new: Path) -> dict[str, str]:
        (new / METRICS_FILE).write_bytes(data)
        return {METRICS_FILE: sha256}

    target = folder / sha256
    if not target.exists():
        appear(target, fill, None)
    uri = f"{commit.uri}/{CURVES_FILE}"
    digest = content_digest({METRICS_FILE: sha256})
    return Ref(uri, digest, "data", (target / METRICS_FILE,), ((uri, sha256),))
