"""What the store tells of the flow runs of the past: enough to tell MLflow the same once more.

A run record names the commits that a flow run used and what MLflow was told of the run as a whole; the commits tell
the rest. Neither names the steps that failed, so these do not come back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from flows.dag import SPECS
from forgetting_core.metrics_file import curves_of
from infra.ancestry import Records, record_faults
from infra.commits import Commit
from infra.inventory import HEADS, RUNS, Record, Run, read_runs
from infra.lineage import Status
from infra.lineage_writer import Point
from infra.objects import Objects
from infra.staging import ArtifactMissingError
from infra.store import Store
from tasks.records import CURVES_FILE
from tasks.score import SCORE_SHARD


@dataclass(frozen=True)
class PastStep:
    """One step of a past run, by the commit that it made or found."""

    label: str
    record: Record
    ran: bool
    """Whether it was computed in this run."""

    @property
    def commit(self) -> Commit:
        """What is known of it."""
        return self.record.commit

    @property
    def started(self) -> datetime:
        """When it was computed, in this run or another."""
        return datetime.fromisoformat(self.commit.provenance["started"])

    @property
    def ended(self) -> datetime:
        """When its computation was over."""
        return self.started + timedelta(seconds=self.commit.provenance["seconds"])


@dataclass(frozen=True)
class PastRun:
    """One flow run."""

    flow_run_id: str
    recipe: str
    reference: str
    """Its MLflow run as it was then; the flow run's own id where MLflow was down."""
    status: Status
    """`KILLED` while the record is not finished: the run was killed, or goes on."""
    finished: bool
    started: datetime
    ended: datetime
    current: bool
    """Whether it is the recipe's last completed run."""
    opening: Mapping[str, Any]
    """What MLflow was told when it began: variant, params, tags."""
    metrics: Mapping[str, float]
    headline: Sequence[str]
    """Names of the metrics that the experiment's page shows."""
    model_tags: Mapping[str, str]
    identity: Mapping[str, Any]
    steps: tuple[PastStep, ...]
    """In an order in which inputs come first."""
    omissions: tuple[str, ...]
    """Why a step of it cannot be told again."""

    @property
    def model(self) -> PastStep | None:
        """The step that made the final model."""
        return next((step for step in self.steps if step.label == "forget"), None)


def past_runs(objects: Objects, records: Records) -> list[PastRun]:
    """Every flow run that the store has recorded, in the order in which they ended. Raises `StoreError`."""
    heads = {head.id for head in read_runs(objects, HEADS)}
    store = Store(objects)
    found = [
        _past_run(run, data, records, current=run.id in heads)
        for run in read_runs(objects, RUNS)
        if (data := store.read_run(run.id)) is not None
    ]
    return sorted(found, key=lambda run: run.ended)


def curve_points(store: Store, step: PastStep) -> list[Point]:
    """The curves of a training, from its checkpoint; none for other steps. Raises `StoreError`.

    Where the times are not in the file, all points are at the training's start.
    """
    try:
        text = store.read_file(step.commit.uri, CURVES_FILE).decode()
    except ArtifactMissingError:
        return []
    points = []
    for line in text.splitlines():
        values = json.loads(line)
        milliseconds = values.pop("milliseconds", int(step.started.timestamp() * 1000))
        number = values.pop("step")
        points.append(Point(number, curves_of(values), milliseconds))
    return points


def _past_run(run: Run, data: dict[str, Any], records: Records, *, current: bool) -> PastRun:
    steps, omissions = [], []
    for label, used in data["steps"].items():
        if used["step"] == SCORE_SHARD.name:  # a killed run was at it; shards are no steps of the DAG
            continue
        record = _record(records, used)
        why = "its commit is not in the store any more" if record is None else _why_not(records, record)
        if record is None or why is not None:
            omissions.append(f"{label} of the flow run {run.id}: {why}")
        else:
            here = record.commit.provenance.get("prefect_flow_run_id") == run.id
            steps.append(PastStep(label, record, ran=here and record.label == label))
    return PastRun(
        flow_run_id=run.id,
        recipe=run.recipe,
        reference=data.get("mlflow_run_id") or run.id,
        status=cast(Status, data.get("status", "FINISHED")) if run.finished else "KILLED",
        finished=run.finished,
        started=_time(data.get("started")) or min((step.started for step in steps), default=run.modified),
        ended=_time(data.get("ended")) or run.modified,
        current=current,
        opening=data.get("lineage", {}),
        metrics=data.get("metrics", {}),
        headline=data.get("headline", ()),
        model_tags=data.get("model_tags", {}),
        identity=data.get("identity", {}),
        steps=_inputs_first(steps),
        omissions=tuple(omissions),
    )


def _record(records: Records, used: Mapping[str, str]) -> Record | None:
    known = records.inventory
    return known.by_artifact.get(used.get("artifact", "")) or known.by_step.get((used["step"], used["fingerprint"]))


def _why_not(records: Records, record: Record) -> str | None:
    """What forbids to tell MLflow of a commit: what was altered must not look as if it had been so then."""
    faults = list(record_faults(records.inventory.root, record))
    if faults:
        fault = faults[0]
        return f"{fault.file} was altered: expected {fault.expected}, found {fault.found}"
    return None if record.commit.step in SPECS else f"{record.commit.step!r} is no step of this version"


def _inputs_first(steps: list[PastStep]) -> tuple[PastStep, ...]:
    """By the contents that steps made and read; of steps that are independent, the one that started earlier."""
    made = {digest: step for step in steps for digest in _digests(step.commit)}
    done: dict[str, PastStep] = {}
    seen = set()

    def visit(step: PastStep) -> None:
        if step.label in seen:
            return
        seen.add(step.label)
        for item in step.commit.inputs.values():
            if item.digest in made:
                visit(made[item.digest])
        done[step.label] = step

    for step in sorted(steps, key=lambda step: (step.started, step.label)):
        visit(step)
    return tuple(done.values())


def _digests(commit: Commit) -> list[str]:
    return [commit.digest, *(output.digest for output in commit.outputs.values())]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
