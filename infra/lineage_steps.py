"""Records the steps of a pipeline run in MLflow: a child run each, with inputs, outputs, metrics and a note.

What a step of a run that goes on says as it comes, `forgetting lineage --relink` says again from the store's
commits: that is what the times and run ids are for, which the former need not give.
"""

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from infra.lineage_book import StepBook
from infra.lineage_experiment import NOTE_TAG, view_path
from infra.lineage_notes import model_note, pipeline_note, step_note
from infra.lineage_outage import OutageProof, never_fails
from infra.lineage_records import Produced, StepRecord, Trail
from infra.lineage_runs import find_run
from infra.lineage_writer import Point, RunWriter

Status = Literal["FINISHED", "FAILED", "KILLED"]


class StepLineage(OutageProof):
    """The steps of one pipeline run. The run itself is opened and ended by `infra.lineage.Lineage`."""

    def __init__(self, tracking_uri: str, recipe: str) -> None:
        super().__init__(tracking_uri)
        self.recipe = recipe
        self.run_id: str | None = None
        """The pipeline run; None when MLflow could not be reached."""
        self.experiment_id: str | None = None
        self._writer: RunWriter
        self._title = ""
        self._book = StepBook()

    @never_fails
    def start_step(
        self,
        step: str,
        *,
        inputs: Sequence[Produced] = (),
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        fingerprint: str | None = None,
        cached: bool = False,
        producer_run_id: str | None = None,
        started: datetime | None = None,
        run_id: str | None = None,
    ) -> str:
        """Open the child run of `step`, visible as RUNNING with its inputs, and return its id.

        `producer_run_id` is what a cached step's commit calls the run that made it (`lineage_runs.run_reference`);
        one that MLflow has lost is left out. `run_id` is a child run of this step that was left incomplete.
        """
        pipeline_run, _ = self._ids()
        inputs = _distinct(inputs)
        producers = self._book.producers_of(inputs)
        producer_run_id = self._held(producer_run_id)
        described = {
            **(tags or {}),
            "mlflow.parentRunId": pipeline_run,
            "recipe": self.recipe,
            "step": step,
            "cache": "hit" if cached else "miss",
            "fingerprint": fingerprint,
            "producer_run_id": producer_run_id,
            **_artifact_tags("input", inputs, producers),
        }
        if run_id is None:
            run_id = self._writer.create_run(step, described, started)
        else:
            self._writer.log(run_id, tags=described)
        record = StepRecord(
            step=step,
            run_id=run_id,
            state="cached" if cached else "running",
            fingerprint=fingerprint,
            producer_run_id=producer_run_id,
            params={key: value for key, value in (params or {}).items() if value is not None},
            inputs=inputs,
            producers=producers,
        )
        self._book.open(record)
        self._writer.log_inputs(run_id, inputs, context=step, producers=producers)
        self._describe_models([item for item in inputs if item.digest not in producers])
        self._writer.log(run_id, params=params, tags={NOTE_TAG: step_note(self._trail(), record)})
        raw = self._book.new_raw(inputs, producers)
        self._writer.log_inputs(pipeline_run, raw, context="pipeline", producers={})
        return run_id

    def finish_step(
        self,
        run_id: str | None,
        *,
        outputs: Sequence[Produced] = (),
        metrics: Mapping[str, float] | None = None,
        seconds: float | None = None,
        tags: Mapping[str, object] | None = None,
        status: Status = "FINISHED",
        ended: datetime | None = None,
    ) -> None:
        """Close a child run with what it produced. `run_id` as `start_step` returned it; `seconds` of work."""
        if run_id is None:
            return
        close = functools.partial(
            self._close_step, run_id, _distinct(outputs), metrics or {}, seconds, tags or {}, status, ended
        )
        if close() is None:
            self.missed(close)

    @never_fails
    def _close_step(
        self,
        run_id: str,
        outputs: Sequence[Produced],
        metrics: Mapping[str, float],
        seconds: float | None,
        tags: Mapping[str, object],
        status: Status,
        ended: datetime | None,
    ) -> Literal[True]:
        pipeline_run, _ = self._ids()
        record = self._book[run_id]
        record.outputs, record.seconds = outputs, seconds
        record.metrics = {key: float(value) for key, value in metrics.items()}
        if status != "FINISHED":
            record.state = "failed" if status == "FAILED" else "killed"
        elif record.state == "running":
            record.state = "ran"
        self._book.made(record)
        producer = record.producer_run_id or run_id
        models = [
            self._writer.model(
                item, name=f"{self.recipe} {record.step} {item.name}", source_run_id=producer, step=record.step
            )
            for item in outputs
            if item.kind == "model"
        ]
        self._writer.log_outputs(run_id, models)
        self._describe_models(outputs)
        values = record.metrics | ({} if seconds is None else {"seconds": seconds})
        self._writer.log(run_id, metrics=values, at=ended)
        note = step_note(self._trail(), record)
        closing = {**tags, **_artifact_tags("output", outputs, {}), NOTE_TAG: note}
        self._writer.close(run_id, status, closing, ended)
        self._book.close(run_id)
        self._writer.log(pipeline_run, tags={NOTE_TAG: pipeline_note(self._trail(), [self._view_link()])})
        return True

    def step(
        self,
        step: str,
        *,
        inputs: Sequence[Produced] = (),
        outputs: Sequence[Produced] = (),
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, object] | None = None,
        fingerprint: str | None = None,
        cached: bool = False,
        producer_run_id: str | None = None,
        seconds: float | None = None,
        started: datetime | None = None,
        ended: datetime | None = None,
        run_id: str | None = None,
    ) -> str | None:
        """`start_step` and `finish_step` in one, for a step that is over: a cached one above all."""
        run_id = self.start_step(
            step,
            inputs=inputs,
            params=params,
            tags=tags,
            fingerprint=fingerprint,
            cached=cached,
            producer_run_id=producer_run_id,
            started=started,
            run_id=run_id,
        )
        self.finish_step(run_id, outputs=outputs, metrics=metrics, seconds=seconds, ended=ended)
        return run_id if self.degraded is None else None

    @never_fails
    def known_step(self, record: StepRecord) -> None:
        """A step of a resumed pipeline run that is recorded already: told again for what others say of it."""
        record.inputs, record.outputs = _distinct(record.inputs), _distinct(record.outputs)
        record.producers = self._book.producers_of(record.inputs)
        self._book.made(record)
        for item in (*record.inputs, *record.outputs):
            if item.kind == "model":
                self._writer.model(item, name=item.name, source_run_id=self._book.producer(item.digest))

    @never_fails
    def curves(self, run_id: str, points: Sequence[Point], mirror: str) -> None:
        """Points of a step's curves at once; those of a run that goes on are sent by `infra.curves`."""
        self._writer.log_curves(run_id, self.run_id, mirror, points)

    def _held(self, reference: str | None) -> str | None:
        """The run that `reference` means today, if MLflow has one."""
        _, experiment_id = self._ids()
        run = find_run(self._writer.client, [experiment_id], reference) if reference else None
        return str(run.info.run_id) if run else None

    def _ids(self) -> tuple[str, str]:
        assert self.run_id is not None and self.experiment_id is not None, "not started"
        return self.run_id, self.experiment_id

    def _trail(self) -> Trail:
        run_id, experiment_id = self._ids()
        return Trail(experiment_id, run_id, self._title, self._book.steps, dict(self._writer.models))

    def _describe_models(self, items: Sequence[Produced]) -> None:
        """Those that were met before, and have no description yet."""
        for item in items:
            if item.kind == "model":
                self._writer.describe_model(item, model_note(self._trail(), item))

    def _view_link(self) -> str:
        _, experiment_id = self._ids()
        return f"[all pipeline runs]({view_path(experiment_id)})"


def _distinct(items: Sequence[Produced]) -> list[Produced]:
    return list({(item.name, item.digest): item.public() for item in items}.values())


def _artifact_tags(role: str, items: Sequence[Produced], producers: Mapping[str, str]) -> dict[str, str | None]:
    """MLflow has no datasets as outputs, and its search mixes up datasets: runs are found by these tags."""
    tags: dict[str, str | None] = {}
    for item in items:
        tags[f"{role}.{item.name}.uri"] = item.uri
        tags[f"{role}.{item.name}.digest"] = item.digest
        tags[f"{role}.{item.name}.producer_run_id"] = producers.get(item.digest)
    return tags
