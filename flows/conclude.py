"""The end of a comparison: what the runs of its seeds evaluated, put together by a step of its own.

It reads the run records of the store, so it serves runs of this process and of a work pool alike.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.bookkeeping import open_context, record_comparison, record_failure
from forgetting_core.config import Recipe
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
from tasks.context import CURRENT, LAUNCHED
from tasks.evaluate import EVALUATE, evaluation_of
from tasks.forget import FORGET
from tasks.records import CURVES_FILE
from tasks.spec import StepCall, StepResult
from tasks.step import as_task


def conclude(
    recipe: Recipe, store: str | None, runs: Mapping[int, str], models: Sequence[str], against: str
) -> StepResult:
    """The step `compare` over `runs`, {seed: flow run id}, as an MLflow pipeline run of its own.

    For a flow. Raises `StoreError`, and what the step raises.
    """
    settings = Settings.from_environment(store=store, work_dir=recipe.execution.work_dir)
    seeds = ", ".join(map(str, runs))
    context = open_context(
        recipe,
        settings,
        command="compare",
        variant="compare",
        params={"seeds": seeds, "models": ", ".join(models), "against": against},
    )
    token = CURRENT.set(context)
    LAUNCHED.get()(context.launcher)
    try:
        inputs: dict[str, Ref] = {}
        for seed, flow_run_id in runs.items():
            inputs |= _inputs(context.store, seed, flow_run_id, models, settings.work_dir / "curves")
        config = ComparisonConfig(recipe=recipe.name, models=list(models), against=against)
        call = StepCall(COMPARE.name, COMPARE, {"comparison": config}, delivered=True)
        result: StepResult = as_task(COMPARE).submit(call, inputs).result()
        record_comparison(context, result)
    except BaseException:
        record_failure(context)
        raise
    finally:
        CURRENT.reset(token)
    return result


def _inputs(store: Store, seed: int, flow_run_id: str, models: Sequence[str], curves_dir: Path) -> dict[str, Ref]:
    """The evaluations of a run, and the curves of its fine-tunes, as inputs of the step."""
    record: dict[str, Any] = store.read_run(flow_run_id) or {"steps": {}}
    found = {}
    for label, used in record["steps"].items():
        commit = store.lookup(used["step"], used["fingerprint"])
        if commit is None:
            raise StoreError(f"{label} of the flow run {flow_run_id}: its commit was deleted; run again")
        if (evaluation := evaluation_of(label)) is not None and evaluation[0] in models:
            found[evaluation_input(seed, *evaluation)] = Ref(commit.uri, commit.digest)
        trained = model_of(label) if used["step"] == FORGET.name else None
        if trained is not None and trained in models and (curves := _curves(store, commit, curves_dir)) is not None:
            found[curves_input(seed, trained)] = curves
    if not any(name.startswith("evaluation") for name in found):
        raise StoreError(
            f"{store.root}: the flow run {flow_run_id} (seed {seed}) left no {EVALUATE.name} in it; all runs of a"
            " comparison need the same store"
        )
    return found


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
