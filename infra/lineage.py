"""The lineage recorder: one MLflow run per pipeline run, a child run per step, and a table for the auditor.

MLflow is a witness, never a participant: when it is down or slow the recorder says so once, sets `degraded`, and
every later call does nothing until whoever hears from MLflow again calls `recover`; a run with such a gap says so
in a tag. The commits of the store stay the one truth. All methods may be called from several threads at once.
"""

import functools
import json
import logging
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from infra.lineage_connection import absolute_uri, open_experiment, outages
from infra.lineage_experiment import NOTE_TAG, describe_experiment, show_metrics, view_path
from infra.lineage_mlflow import as_tags, register_version, safe_model_name
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
from infra.lineage_writer import INCOMPLETE_TAG, RunWriter
from infra.programs import program
from infra.public import public_data, public_text, public_uri

__all__ = ["Lineage", "Produced", "public_uri"]

Status = Literal["FINISHED", "FAILED", "KILLED"]
CURRENT_ALIAS = "current"
"""On the version that the last finished run ended with; MLflow reserves the alias `latest` for itself."""

_logger = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def _never_fails(
    method: Callable[Concatenate["Lineage", _P], _T], /
) -> Callable[Concatenate["Lineage", _P], _T | None]:
    """An outage of MLflow degrades the recorder; mistakes of the caller still raise."""

    @functools.wraps(method)
    def recorded(self: "Lineage", /, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        if self.degraded is not None:
            return None
        try:
            return method(self, *args, **kwargs)
        except outages() as error:
            self._degrade(error)
            return None

    return recorded


class Lineage:
    """Records one pipeline run. Made by `Lineage.start`; ended by `finish`, once."""

    def __init__(self, tracking_uri: str, recipe: str) -> None:
        self.tracking_uri = absolute_uri(tracking_uri)
        self.recipe = recipe
        self.run_id: str | None = None
        """The pipeline run; None when MLflow could not be reached."""
        self.experiment_id: str | None = None
        self.degraded: str | None = None
        """Why nothing is recorded at the moment; None while all is well."""
        self._writer: RunWriter
        self._lock = threading.RLock()
        self._title = ""
        self._steps: dict[str, StepRecord] = {}
        self._open_steps: dict[str, None] = {}
        self._missed: list[Callable[[], object]] = []
        """What closes the steps that ended during an outage."""
        self._gap: str | None = None
        self._producers: dict[str, str] = {}
        self._pipeline_inputs: set[tuple[str, str]] = set()
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
    ) -> "Lineage":
        """Open the pipeline run `{recipe} {variant}`; never raises for an MLflow that cannot be reached.

        The end of the run adds to its name how many steps ran and were cached.
        `tracking_uri` is a server (`http://…`) or an SQLite file (`sqlite:///…`), which is created when missing.
        Params are an allow-list of the caller's making; those that are None are left out.
        """
        lineage = cls(tracking_uri, recipe)
        lineage._open(experiment, variant, params or {}, tags or {})
        return lineage

    @_never_fails
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
    ) -> str:
        """Open the child run of `step`, visible as RUNNING with its inputs, and return its id.

        `producer_run_id` is the child run that produced a cached step's artifacts.
        """
        pipeline_run, _ = self._ids()
        inputs = _distinct(inputs)
        with self._lock:
            producers = {i.digest: self._producers[i.digest] for i in inputs if i.digest in self._producers}
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
        run_id = self._writer.create_run(step, described)
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
        with self._lock:
            self._steps[run_id] = record
            self._open_steps[run_id] = None
        self._writer.log_inputs(run_id, inputs, context=step, producers=producers)
        trail = self._trail()
        for item in inputs:
            if item.kind == "model" and item.digest not in producers:
                self._writer.describe_model(item, model_note(trail, item))
        self._writer.log(run_id, params=params, tags={NOTE_TAG: step_note(trail, record)})
        with self._lock:
            raw = [i for i in inputs if i.digest not in producers]
            raw = [i for i in raw if (i.name, i.digest) not in self._pipeline_inputs]
            self._pipeline_inputs.update((i.name, i.digest) for i in raw)
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
    ) -> None:
        """Close a child run with what it produced. `run_id` as `start_step` returned it; `seconds` of work."""
        if run_id is None:
            return
        close = functools.partial(
            self._close_step, run_id, _distinct(outputs), metrics or {}, seconds, tags or {}, status
        )
        if close() is None:
            with self._lock:
                self._missed.append(close)

    def recover(self) -> None:
        """MLflow was heard from: go on recording, and close the steps that ended meanwhile. Cheap when all is well.

        A run that could not even be opened is not opened later; a step that began meanwhile has no record.
        """
        with self._lock:
            if self.degraded is None or self.run_id is None or self._finished:
                return
            self.degraded = None
            missed, self._missed = self._missed, []
        _logger.warning("MLflow at %s answers again; lineage goes on", public_uri(self.tracking_uri))
        for close in missed:
            close()

    @_never_fails
    def _close_step(
        self,
        run_id: str,
        outputs: Sequence[Produced],
        metrics: Mapping[str, float],
        seconds: float | None,
        tags: Mapping[str, object],
        status: Status,
    ) -> Literal[True]:
        pipeline_run, _ = self._ids()
        record = self._steps[run_id]
        record.outputs, record.seconds = outputs, seconds
        record.metrics = {key: float(value) for key, value in metrics.items()}
        if status != "FINISHED":
            record.state = "failed" if status == "FAILED" else "killed"
        elif record.state == "running":
            record.state = "ran"
        producer = record.producer_run_id or run_id
        with self._lock:
            for item in outputs:
                self._producers.setdefault(item.digest, producer)
        models = [
            self._writer.model(
                item, name=f"{self.recipe} {record.step} {item.name}", source_run_id=producer, step=record.step
            )
            for item in outputs
            if item.kind == "model"
        ]
        self._writer.log_outputs(run_id, models)
        trail = self._trail()
        for item in outputs:
            if item.kind == "model":
                self._writer.describe_model(item, model_note(trail, item))
        self._writer.log(run_id, metrics=record.metrics | ({} if seconds is None else {"seconds": seconds}))
        note = step_note(trail, record)
        self._writer.close(run_id, status, {**tags, **_artifact_tags("output", outputs, {}), NOTE_TAG: note})
        with self._lock:
            self._open_steps.pop(run_id, None)
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
        )
        self.finish_step(run_id, outputs=outputs, metrics=metrics, seconds=seconds)
        return run_id if self.degraded is None else None

    @_never_fails
    def finish(
        self,
        status: Status,
        *,
        metrics: Mapping[str, float] | None = None,
        headline: Sequence[str] = (),
        final_model: Produced | None = None,
        model_tags: Mapping[str, object] | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Close the pipeline run; steps still open get its status. A second call does nothing.

        `final_model` becomes the run's output and, in a finished run, the current version of the registered model
        named after the recipe, with `model_tags` (ρ). `headline` names the metrics that are columns of the
        experiment's page. `summary` is JSON data for `lineage.json`.
        """
        values = {key: float(value) for key, value in (metrics or {}).items()}
        with self._lock:
            if self._finished:
                return
            self._finished = True
            open_steps = list(self._open_steps)
        pipeline_run, experiment_id = self._ids()
        for run_id in open_steps:
            self.finish_step(run_id, status=status)
        model = self._final_model(final_model, model_tags or {}, registered=status == "FINISHED")
        self._writer.log(pipeline_run, metrics=values)
        show_metrics(self._writer.client, experiment_id, headline)
        trail = self._trail()
        tags = {
            NOTE_TAG: pipeline_note(trail, [*self._model_links(model), self._view_link()]),
            "mlflow.runName": f"{self._title} · {trail.counts()}" if trail.steps else None,
            INCOMPLETE_TAG: self._gap,
        }
        self._writer.close(pipeline_run, status, tags)
        self.closed = True
        document = {
            "experiment_id": self.experiment_id,
            "run_id": pipeline_run,
            "recipe": self.recipe,
            "status": status,
            "steps": [record.as_json() for record in list(self._steps.values())],
            "metrics": values,
            "final_model": model,
            "summary": dict(summary or {}),
        }
        # last: the one write that goes to the artifact store, which may be down on its own
        text = json.dumps(public_data(document), indent=2, ensure_ascii=False, allow_nan=False)
        self._writer.client.log_text(pipeline_run, text + "\n", "lineage.json")

    @_never_fails
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

    @_never_fails
    def _open(
        self, experiment: str, variant: str, params: Mapping[str, object], tags: Mapping[str, object]
    ) -> None:
        client, self.experiment_id = open_experiment(self.tracking_uri, experiment)
        self._writer = RunWriter(client, self.experiment_id, self.recipe)
        describe_experiment(client, self.experiment_id)
        self._title = public_text(f"{self.recipe} {variant}".strip())
        described = {**tags, "recipe": self.recipe, "step": "pipeline"}
        run_id = self._writer.create_run(self._title, described)
        self._writer.log(run_id, params=params)
        self.run_id = run_id

    def _degrade(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {public_text(' '.join(str(error).split()))[:500]}"
        with self._lock:
            if self.degraded is not None:
                return
            self.degraded = self._gap = reason
        _logger.warning(
            "MLflow at %s failed; the run goes on without lineage: %s",
            public_uri(self.tracking_uri),
            reason,
        )

    def _ids(self) -> tuple[str, str]:
        assert self.run_id is not None and self.experiment_id is not None, "not started"
        return self.run_id, self.experiment_id

    def _final_model(
        self, item: Produced | None, tags: Mapping[str, object], *, registered: bool
    ) -> dict[str, Any] | None:
        if item is None:
            return None
        pipeline_run, _ = self._ids()
        item = item.public()
        producer = self._producers.get(item.digest, pipeline_run)
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
                description=model_note(self._trail(), item, DESCRIPTION_CHARACTERS),
            )
            self._writer.log(pipeline_run, tags={"model_version": version})
        return {"model_id": model_id, "uri": item.uri, "digest": item.digest, "version": version}

    def _trail(self) -> Trail:
        run_id, experiment_id = self._ids()
        with self._lock:
            steps = list(self._steps.values())
        return Trail(experiment_id, run_id, self._title, steps, dict(self._writer.models))

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
