"""The lineage recorder: one MLflow run per pipeline run, a child run per step, and a table for the auditor.

When MLflow is down or slow the recorder says so once, sets `degraded`, and every later call does nothing until
whoever hears from MLflow again calls `recover`; a run with such a gap says so in a tag. The commits of the store
stay the one truth, and from them `forgetting lineage --relink` makes the same records with the same recorder: that
is what the times and run ids are for that a run which goes on need not give. All methods may be called from several
threads at once.
"""

import functools
import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from infra.lineage_book import StepBook
from infra.lineage_connection import absolute_uri, open_experiment
from infra.lineage_experiment import NOTE_TAG, describe_experiment, show_metrics, view_path
from infra.lineage_mlflow import as_params, as_tags, register_version, safe_model_name
from infra.lineage_notes import (
    DESCRIPTION_CHARACTERS,
    Produced,
    StepRecord,
    Trail,
    escape_markdown,
    model_note,
    model_path,
    pipeline_note,
    run_path,
    step_note,
    version_path,
)
from infra.lineage_outage import OutageProof, never_fails
from infra.lineage_runs import find_run
from infra.lineage_writer import INCOMPLETE_TAG, Point, RunWriter
from infra.programs import program
from infra.public import public_data, public_text, public_uri

__all__ = ["Lineage", "Produced", "public_uri"]

Status = Literal["FINISHED", "FAILED", "KILLED"]
EXPERIMENT = "forgetting"
CURRENT_ALIAS = "current"
"""On the version that the last finished run ended with; MLflow reserves the alias `latest` for itself."""


class Lineage(OutageProof):
    """Records one pipeline run. Made by `Lineage.start` or `Lineage.resume`; ended by `finish`, once."""

    def __init__(self, tracking_uri: str, recipe: str) -> None:
        super().__init__(absolute_uri(tracking_uri))
        self.recipe = recipe
        self.run_id: str | None = None
        """The pipeline run; None when MLflow could not be reached."""
        self.experiment_id: str | None = None
        self.opening: dict[str, Any] = {}
        """What `start` was told, as JSON data: enough to start the same run again."""
        self._writer: RunWriter
        self._title = ""
        self._book = StepBook()
        self._finish_lock = threading.Lock()
        self._finished = False
        self.closed = False
        """Whether MLflow knows how the pipeline run ended."""

    @classmethod
    def start(
        cls,
        tracking_uri: str,
        *,
        experiment: str,
        recipe: str,
        variant: str = "",
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        started: datetime | None = None,
    ) -> "Lineage":
        """Open the pipeline run `{recipe} {variant}`; never raises for an MLflow that cannot be reached.

        The end of the run adds to its name how many steps ran and were cached.
        `tracking_uri` is a server (`http://…`) or an SQLite file (`sqlite:///…`), which is created when missing.
        Params are an allow-list of the caller's making; those that are None are left out. `started` is now.
        """
        lineage = cls(tracking_uri, recipe)
        lineage.opening = {"variant": variant, "params": as_params(params or {}), "tags": as_tags(tags or {})}
        lineage._open(experiment, variant, params or {}, tags or {}, started or datetime.now(UTC))
        return lineage

    @classmethod
    def resume(
        cls, tracking_uri: str, *, experiment: str, recipe: str, run_id: str, variant: str = ""
    ) -> "Lineage":
        """Go on recording the pipeline run `run_id`; its steps are told again with `known_step`, or completed."""
        lineage = cls(tracking_uri, recipe)
        lineage._reopen(experiment, variant, run_id)
        return lineage

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

    def recover(self) -> None:
        """MLflow was heard from: go on recording, and close the steps that ended meanwhile. Cheap when all is well.

        A run that could not even be opened is not opened later; a step that began meanwhile has no record.
        """
        if self.run_id is not None and not self._finished:
            self.resume_after_outage()

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

    @never_fails
    def finish(
        self,
        status: Status,
        *,
        metrics: Mapping[str, float] | None = None,
        headline: Sequence[str] = (),
        final_model: Produced | None = None,
        model_tags: Mapping[str, object] | None = None,
        summary: Mapping[str, Any] | None = None,
        ended: datetime | None = None,
        current: bool = True,
    ) -> None:
        """Close the pipeline run; steps still open get its status. A second call does nothing.

        `final_model` becomes the run's output and, in a finished run, a version of the registered model named after
        the recipe, with `model_tags` (ρ); the `current` one, unless a later run has ended already. `headline` names
        the metrics that are columns of the experiment's page. `summary` is JSON data for `lineage.json`.
        """
        values = {key: float(value) for key, value in (metrics or {}).items()}
        with self._finish_lock:
            if self._finished:
                return
            self._finished = True
        pipeline_run, experiment_id = self._ids()
        for run_id in self._book.open_steps:
            self.finish_step(run_id, status=status)
        model = self._final_model(final_model, model_tags or {}, current, registered=status == "FINISHED")
        self._writer.log(pipeline_run, metrics=values, at=ended)
        show_metrics(self._writer.client, experiment_id, headline)
        trail = self._trail()
        closing = {
            NOTE_TAG: pipeline_note(trail, [*self._model_links(model), self._view_link()]),
            "mlflow.runName": f"{self._title} · {trail.counts()}" if trail.steps else None,
            INCOMPLETE_TAG: self.gap,
        }
        self._writer.close(pipeline_run, status, closing, ended)
        self.closed = True
        document = {
            "experiment_id": self.experiment_id,
            "run_id": pipeline_run,
            "recipe": self.recipe,
            "status": status,
            "steps": self._book.as_json(),
            "metrics": values,
            "final_model": model,
            "summary": dict(summary or {}),
        }
        # last: the one write that goes to the artifact store, which may be down on its own
        text = json.dumps(public_data(document), indent=2, ensure_ascii=False, allow_nan=False)
        self._writer.client.log_text(pipeline_run, text + "\n", "lineage.json")

    @never_fails
    def log_text(self, name: str, text: str) -> None:
        """Make `text` the file `name` among the pipeline run's artifacts; also after `finish`."""
        pipeline_run, _ = self._ids()
        self._writer.client.log_text(pipeline_run, text, name)

    def ui_link(self) -> str:
        """Address of the pipeline run in MLflow's UI; for a database, in the UI that `ui_command` starts."""
        served = self.tracking_uri.startswith(("http://", "https://"))
        base = public_uri(self.tracking_uri).rstrip("/") if served else "http://127.0.0.1:5000"
        if self.run_id is None or self.experiment_id is None:
            return f"{base}/"
        return f"{base}/{run_path(self.experiment_id, self.run_id)}"

    def ui_command(self) -> str:
        """What to run (and then open) to see this run: a shell command, or only the link when there is a server."""
        if self.tracking_uri.startswith(("http://", "https://")):
            return self.ui_link()
        backend = shlex.quote(public_uri(self.tracking_uri))
        return f"{program('mlflow')} ui --backend-store-uri {backend} --port 5000  # then open {self.ui_link()}"

    @never_fails
    def _open(
        self,
        experiment: str,
        variant: str,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        started: datetime,
    ) -> None:
        client, self.experiment_id = open_experiment(self.tracking_uri, experiment)
        self._writer = RunWriter(client, self.experiment_id, self.recipe)
        describe_experiment(client, self.experiment_id)
        self._title = _title(self.recipe, variant)
        described = {**tags, "recipe": self.recipe, "step": "pipeline"}
        run_id = self._writer.create_run(self._title, described, started)
        self._writer.log(run_id, params=params)
        self.run_id = run_id

    @never_fails
    def _reopen(self, experiment: str, variant: str, run_id: str) -> None:
        client, self.experiment_id = open_experiment(self.tracking_uri, experiment)
        self._writer = RunWriter(client, self.experiment_id, self.recipe)
        self._title = _title(self.recipe, variant)
        self.run_id = run_id

    def _held(self, reference: str | None) -> str | None:
        """The run that `reference` means today, if MLflow has one."""
        _, experiment_id = self._ids()
        run = find_run(self._writer.client, [experiment_id], reference) if reference else None
        return str(run.info.run_id) if run else None

    def _ids(self) -> tuple[str, str]:
        assert self.run_id is not None and self.experiment_id is not None, "not started"
        return self.run_id, self.experiment_id

    def _final_model(
        self, item: Produced | None, tags: Mapping[str, object], current: bool, *, registered: bool
    ) -> dict[str, Any] | None:
        if item is None:
            return None
        pipeline_run, _ = self._ids()
        item = item.public()
        producer = self._book.producer(item.digest) or pipeline_run
        name = f"{self.recipe} {item.name}"
        model_id = self._writer.model(item, name=name, source_run_id=producer)
        self._writer.log_outputs(pipeline_run, [model_id])
        version = None
        if registered:
            version = register_version(
                self._writer.client,
                safe_model_name(self.recipe),
                model_id,
                run_id=producer,
                tags=as_tags({**tags, "digest": item.digest, "uri": item.uri}),
                alias=CURRENT_ALIAS,
                current=current,
                description=model_note(self._trail(), item, DESCRIPTION_CHARACTERS),
            )
            self._writer.log(pipeline_run, tags={"model_version": version})
        return {"model_id": model_id, "uri": item.uri, "digest": item.digest, "version": version}

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

    def _model_links(self, model: Mapping[str, Any] | None) -> list[str]:
        if model is None:
            return []
        _, experiment_id = self._ids()
        links = [f"[final model and its lineage]({model_path(experiment_id, model['model_id'])})"]
        if model["version"] is not None:
            name = safe_model_name(self.recipe)
            path = version_path(name, model["version"])
            links.append(f"[{escape_markdown(name)} version {model['version']}]({path})")
        return links


def _title(recipe: str, variant: str) -> str:
    return public_text(f"{recipe} {variant}".strip())


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
