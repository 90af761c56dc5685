"""The lineage recorder: one MLflow run per pipeline run, a child run per step (`infra.lineage_steps`), one table.

When MLflow is down or slow the recorder says so once, sets `degraded`, and every later call does nothing until
whoever hears from MLflow again calls `recover`; a run with such a gap says so in a tag. The commits of the store
stay the one truth. All methods may be called from several threads at once.
"""

import functools
import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from infra.lineage_connection import absolute_uri, open_experiment
from infra.lineage_experiment import NOTE_TAG, describe_experiment, show_metrics
from infra.lineage_mlflow import as_params, as_tags, register_version, safe_model_name
from infra.lineage_notes import (
    DESCRIPTION_CHARACTERS,
    escape_markdown,
    model_note,
    model_path,
    pipeline_note,
    run_path,
    version_path,
)
from infra.lineage_outage import never_fails
from infra.lineage_records import Produced
from infra.lineage_runs import find_run
from infra.lineage_steps import Status, StepLineage
from infra.lineage_writer import INCOMPLETE_TAG, RunWriter
from infra.programs import program
from infra.public import public_data, public_text, public_uri

__all__ = ["Lineage", "Produced", "Status", "public_uri"]

EXPERIMENT = "forgetting"
CURRENT_ALIAS = "current"
"""On the version that the last finished run ended with; MLflow reserves the alias `latest` for itself."""


class Lineage(StepLineage):
    """Records one pipeline run. Made by `Lineage.start` or `Lineage.resume`; ended by `finish`, once."""

    def __init__(self, tracking_uri: str, recipe: str) -> None:
        super().__init__(absolute_uri(tracking_uri), recipe)
        self.opening: dict[str, Any] = {}
        """What `start` was told, as JSON data: enough to start the same run again."""
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

    def recover(self) -> None:
        """MLflow was heard from: go on recording, and close the steps that ended meanwhile. Cheap when all is well.

        A run that could not even be opened is not opened later; a step that began meanwhile has no record.
        """
        if self.run_id is not None and not self._finished:
            self.resume_after_outage()

    def close_lost(self, run_id: str, why: str, last_seen: datetime) -> None:
        """End another pipeline run, whose process is gone, and its open steps as KILLED; `why` becomes a tag.

        Nothing happens to one that has ended. Should its process live after all, that tells its own end later.
        """
        close = functools.partial(self._close_lost, run_id, why, last_seen)
        if close() is None:
            self.missed(close)

    @never_fails
    def _close_lost(self, run_id: str, why: str, last_seen: datetime) -> Literal[True]:
        _, experiment_id = self._ids()
        held = find_run(self._writer.client, [experiment_id], run_id)
        if held is not None and held.info.lifecycle_stage == "active":
            self._writer.close_tree(held.info.run_id, "KILLED", int(last_seen.timestamp() * 1000), why)
        return True

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
