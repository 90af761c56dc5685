"""What a report is told about the run that it is in; see `forgetting_core.run_facts`."""

from typing import Any

from forgetting_core.run_facts import RunFacts, StepFacts, SweepPoint
from infra.siblings import RUNS_READ, sibling_runs
from infra.staging import ArtifactMissingError
from tasks.context import RunContext
from tasks.evaluate import evaluated_model, metrics_by_model
from tasks.records import CURVES_FILE
from tasks.spec import StepResult

RHO = ("partition", "rho")
MAY_DIFFER = {"partition": ("config", *RHO), "forget": ("inputs", "token_labels")}
"""What the payloads of a sweep's steps may differ in; those that evaluate `forget`, in its checkpoint."""


def run_facts(context: RunContext) -> RunFacts:
    """The facts as far as the run has come. Raises `StoreError`."""
    results: dict[str, StepResult] = dict(context.used)
    given: dict[str, StepFacts] = {}
    steps = [_step(context, result, given) for result in results.values()]
    return RunFacts(
        flow_run_id=context.flow_run_id,
        steps=(*given.values(), *steps),
        curves={label: _curves(context, result) for label, result in results.items() if result.ref.kind == "model"},
        bad_rows=results["split"].summary.get("bad_rows", {}) if "split" in results else {},
        sweep=_sweep(context),
        runs_searched=RUNS_READ,
    )


def _step(context: RunContext, result: StepResult, given: dict[str, StepFacts]) -> StepFacts:
    """One step; what it reads and no step made is added to `given`, once for each content."""
    reads = []
    for name, value in context.calls[result.label][1].items():
        if isinstance(value, tuple):
            reads.append(value[0].label)
        elif value is not None:
            fact = given.setdefault(value.digest, StepFacts(f"{name} (given)", "given", value.digest))
            reads.append(fact.label)
    return StepFacts(
        label=result.label,
        state=result.state,
        digest=result.ref.digest,
        fingerprint=result.fingerprint,
        seconds=result.seconds,
        reads=tuple(dict.fromkeys(reads)),
    )


def _curves(context: RunContext, result: StepResult) -> str | None:
    try:
        return context.store.read_file(result.ref.uri, CURVES_FILE).decode()
    except ArtifactMissingError:
        return None


def _sweep(context: RunContext) -> tuple[SweepPoint, ...]:
    if context.recipe.partition.rho is None:
        return ()
    record: dict[str, Any] = context.run_record()
    evaluations = [label for label in record["steps"] if evaluated_model(label) == "forget"]
    may_differ = {**MAY_DIFFER, **dict.fromkeys(evaluations, ("inputs", "checkpoint"))}
    found = sibling_runs(context.store, record, RHO, may_differ)
    return tuple(
        SweepPoint(rho, metrics_by_model((label, commit.summary) for label, commit in commits.items()))
        for rho, commits in sorted(found.items(), key=lambda item: float(item[0]))
    )
