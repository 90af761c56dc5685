"""`forgetting lineage --relink`: MLflow's records made again from the store, with the recorder of a run.

What MLflow holds already is left alone, so a second time changes nothing. Made again are pipeline runs that MLflow
does not hold; completed are those it holds with steps missing, without their end, or with links that lead nowhere.
A run in MLflow's trash counts as held: somebody wanted it there. Closed are runs that MLflow shows as running
though they are over, because their host was lost.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from flows.dag import SPECS
from flows.lineage_target import Witness, find_target, last_model
from flows.lost_runs import why_open
from flows.past_runs import PastRun, PastStep, curve_points, past_runs
from forgetting_core.comparison import PAGE_FILE
from infra.ancestry import Records, read_all_records
from infra.errors import RequestError, TrackingError
from infra.lease import Leases
from infra.lineage import EXPERIMENT, Lineage, Produced
from infra.lineage_connection import open_experiment, outages
from infra.lineage_records import StepRecord
from infra.lineage_runs import RELINKED_FROM, RunIndex, run_reference
from infra.lineage_writer import INCOMPLETE_TAG, RunWriter
from infra.objects import Objects
from infra.plan import flatten
from infra.public import public_text, public_uri
from infra.settings import LEASE_TTL_SECONDS, Settings
from infra.store import Store
from infra.urls import open_objects
from tasks.compare import COMPARE
from tasks.records import inputs_of, mirror_of, numbers, outputs_of, result_of, tags_of
from tasks.report import REPORT
from tasks.report_page import PAGE, show_report
from tasks.spec import StepCall, StepResult

if TYPE_CHECKING:
    from mlflow.entities import Run

Action = Literal["created", "completed", "closed"]
PAGES = {REPORT.name: PAGE, COMPARE.name: PAGE_FILE}
"""The page of a step that makes one, which MLflow shows with the pipeline run."""
OVER = "its host was lost; Prefect says that its flow run is over"


@dataclass(frozen=True)
class Change:
    """What was done for one flow run."""

    past: PastRun
    action: Action
    run_id: str
    """The pipeline run in MLflow."""


@dataclass
class Relinked:
    """What `relink` did."""

    store: str
    mlflow: str
    looked_at: int
    """Flow runs."""
    changes: list[Change] = field(default_factory=list)
    omissions: list[str] = field(default_factory=list)
    """What cannot be told again, and why."""
    left_open: dict[str, str] = field(default_factory=dict)
    """Runs that MLflow shows as running, by their id there, and why they were not closed."""


def relink(argument: str | None, store: str | None) -> Relinked:
    """Bring MLflow up to what the store knows: of everything, or of what made and used `argument`.

    Raises `RequestError` for an argument that is nothing or several things, `StoreError` when the store cannot be
    read, `TrackingError` when MLflow cannot be written.
    """
    settings = Settings.from_environment(store=store)
    objects = open_objects(settings.store_url)
    records = read_all_records(objects)
    runs = past_runs(objects, records)
    if argument is not None:
        runs = _concerned(runs, argument, settings, records)
    done = Relinked(objects.root, public_uri(settings.tracking_uri), len(runs))
    done.omissions = [omission for run in runs for omission in run.omissions]
    try:
        # a cached step may have been computed in a run that ended later: what it links to is there the second time
        for _ in range(2):
            told = {change.run_id for change in done.changes}
            again, done.left_open = _relink_all(runs, objects, settings.tracking_uri)
            done.changes += [change for change in again if change.run_id not in told]
    except outages() as error:
        reason = public_text(" ".join(str(error).split()))[:500]
        raise TrackingError(
            f"MLflow at {done.mlflow} failed: {type(error).__name__}: {reason}; run it again"
        ) from error
    return done


def _concerned(runs: list[PastRun], argument: str, settings: Settings, records: Records) -> list[PastRun]:
    """The runs that made the artifact or something on its way, and those that used it."""
    witness = Witness(settings.tracking_uri)
    try:
        _, target, _ = find_target(argument, settings, records.inventory.root, witness)
    except RequestError:
        # MLflow may know no such model just because its records are lost
        found = last_model(records, argument)
        if found is None:
            raise
        target = found
    way = {record.artifact for record in records.inventory.ancestors_of(target)}

    def concerned(step: PastStep) -> bool:
        return step.record.artifact == target.artifact or (step.ran and step.record.artifact in way)

    return [run for run in runs if any(map(concerned, run.steps))]


def _relink_all(runs: list[PastRun], objects: Objects, tracking_uri: str) -> tuple[list[Change], dict[str, str]]:
    """What was done, and `Relinked.left_open`."""
    client, experiment_id = open_experiment(tracking_uri, EXPERIMENT)
    index = RunIndex(client, [experiment_id])
    writer = RunWriter(client, experiment_id, "")
    at_work = Leases(objects, LEASE_TTL_SECONDS).at_work()
    changes: list[Change] = []
    left_open: dict[str, str] = {}
    for past in runs:
        held = index.find(past.reference)
        if held is None:
            tags = {**past.opening.get("tags", {}), RELINKED_FROM: past.reference}
            opening = {**past.opening, "tags": tags}
            lineage = Lineage.start(
                tracking_uri, experiment=EXPERIMENT, recipe=past.recipe, started=past.started, **opening
            )
        elif not past.finished and held.info.status == "RUNNING" and held.info.lifecycle_stage == "active":
            if (why := why_open(past, at_work)) is None:
                ended = int(past.ended.timestamp() * 1000)
                writer.close_tree(held.info.run_id, past.status, ended, OVER)
                changes.append(Change(past, "closed", held.info.run_id))
            else:
                left_open[held.info.run_id] = why
            continue
        elif _is_complete(past, held, index):
            continue
        else:
            lineage = Lineage.resume(
                tracking_uri,
                experiment=EXPERIMENT,
                recipe=past.recipe,
                run_id=held.info.run_id,
                variant=past.opening.get("variant", ""),
            )
        _Retelling(past, objects, lineage, index, held).tell()
        if lineage.degraded is not None or lineage.run_id is None:
            raise TrackingError(f"MLflow at {public_uri(tracking_uri)} failed: {lineage.degraded}; run it again")
        changes.append(Change(past, "created" if held is None else "completed", lineage.run_id))
    return changes, left_open


def _is_complete(past: PastRun, held: "Run", index: RunIndex) -> bool:
    """Whether nothing is to be done for a run that MLflow holds."""
    if held.info.lifecycle_stage == "deleted" or not past.finished:
        return True
    ended = held.info.status == past.status and INCOMPLETE_TAG not in held.data.tags
    return ended and all(_is_told(step, _child(index, held, step), index) for step in past.steps)


def _child(index: RunIndex, held: "Run | None", step: PastStep) -> "Run | None":
    return index.child(held.info.run_id, step.label, step.commit.fingerprint) if held is not None else None


def _is_told(step: PastStep, child: "Run | None", index: RunIndex) -> bool:
    """Whether a step's run is complete, and leads to the run that made its artifact if there is one."""
    if child is None or child.info.status != "FINISHED":
        return False
    tags = child.data.tags
    producer = index.find(run_reference(step.commit))
    if tags.get("cache") == "hit" and producer is not None and tags.get("producer_run_id") != producer.info.run_id:
        return False
    return any(tag.startswith(("output.", "artifact.")) for tag in tags)


class _Retelling:
    """One past run, told to a recorder once more."""

    def __init__(
        self, past: PastRun, objects: Objects, lineage: Lineage, index: RunIndex, held: "Run | None"
    ) -> None:
        self._past = past
        self._objects = objects
        self._lineage = lineage
        self._index = index
        self._held = held

    def tell(self) -> None:
        """All steps, then the end."""
        past = self._past
        for step in past.steps:
            child = _child(self._index, self._held, step)
            if child is not None and _is_told(step, child, self._index):
                self._remind(step, child)
            else:
                self._tell_step(step, child)
        model = past.model.commit if past.model is not None and past.status == "FINISHED" else None
        known = self._held.data.metrics if self._held is not None else {}
        self._lineage.finish(
            past.status,
            metrics={name: value for name, value in past.metrics.items() if name not in known},
            headline=past.headline,
            final_model=Produced("checkpoint", "model", model.uri, model.digest) if model else None,
            model_tags=past.model_tags,
            summary={"recipe": past.identity, "store": self._objects.root},
            ended=past.ended,
            current=past.current,
        )
        for step in past.steps:
            if (page := PAGES.get(step.commit.step)) is not None:
                show_report(Store(self._objects), self._lineage, step.commit.uri, page)

    def _remind(self, step: PastStep, child: "Run") -> None:
        """A step that MLflow has as it should be: only the tables of the run need it."""
        commit, result = step.commit, _result(step)
        producer = self._index.find(child.data.tags.get("producer_run_id", ""))
        cached = child.data.tags.get("cache") == "hit"
        self._lineage.known_step(
            StepRecord(
                step=step.label,
                run_id=child.info.run_id,
                state="cached" if cached else "ran",
                fingerprint=commit.fingerprint,
                producer_run_id=producer.info.run_id if producer else None,
                params=flatten(commit.payload["config"]),
                inputs=inputs_of(commit),
                producers={},
                outputs=outputs_of(result),
                metrics=numbers(commit.summary),
                seconds=None if cached else result.seconds,
            )
        )

    def _tell_step(self, step: PastStep, child: "Run | None") -> None:
        commit, result = step.commit, _result(step)
        reference = run_reference(commit)
        known = child.data.metrics if child is not None else {}
        tags = tags_of(commit)
        if step.ran and (child is None or child.info.run_id != reference):
            tags[RELINKED_FROM] = reference
        run_id = self._lineage.step(
            step.label,
            inputs=inputs_of(commit),
            outputs=outputs_of(result),
            params=flatten(commit.payload["config"]),
            metrics={name: value for name, value in numbers(commit.summary).items() if name not in known},
            tags=tags,
            fingerprint=commit.fingerprint,
            cached=not step.ran,
            producer_run_id=None if step.ran else reference,
            seconds=result.seconds if step.ran and "seconds" not in known else None,
            started=step.started if step.ran else self._past.started,
            ended=_ended(child) or (step.ended if step.ran else self._past.started),
            run_id=child.info.run_id if child is not None else None,
        )
        if step.ran and run_id is not None:
            points = curve_points(Store(self._objects), step)
            self._lineage.curves(run_id, points, mirror_of(_call(step)))


def _call(step: PastStep) -> StepCall:
    return StepCall(step.label, SPECS[step.commit.step])


def _result(step: PastStep) -> StepResult:
    return result_of(_call(step), step.commit, "ran" if step.ran else "cached")


def _ended(child: "Run | None") -> datetime | None:
    if child is None or child.info.end_time is None:
        return None
    return datetime.fromtimestamp(child.info.end_time / 1000, UTC)
