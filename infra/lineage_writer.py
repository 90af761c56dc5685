"""Writing to the runs of one experiment: params, metrics, tags, inputs and outputs, each within MLflow's limits.

Knows what a run and an artifact are, but not which runs a pipeline has: that is `infra.lineage`.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from infra.lineage_experiment import NOTE_TAG
from infra.lineage_mlflow import as_params, as_tags, dataset_input, external_model, safe_key
from infra.lineage_records import Produced
from infra.public import public_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENTITIES_PER_BATCH = 100
METRICS_PER_BATCH = 1000
SYSTEM = "system/"
"""Before the names of the machine's metrics, which MLflow shows on a page of their own."""
SKIPPED_TAG = "nonfinite_metrics_skipped"
INCOMPLETE_TAG = "lineage_incomplete"
LATE = "its end was not recorded when it came"
"""Why steps may be missing from a pipeline run; the store's commits have them."""


class Point(NamedTuple):
    """What the curves of a run show at one step."""

    step: int
    metrics: Mapping[str, float]
    milliseconds: int
    """Since the epoch."""


class RunWriter:
    """Writes with ids passed explicitly, so that threads do not share an active run. Raises what MLflow raises."""

    def __init__(self, client: "MlflowClient", experiment_id: str, recipe: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.recipe = recipe
        self._lock = threading.Lock()
        self._model_lock = threading.Lock()
        self._input_lock = threading.Lock()
        self._skipped: dict[str, int] = {}
        self.models: dict[str, str] = {}
        """Digest of each model met so far -> its id."""

    def create_run(self, name: str, tags: Mapping[str, object], started: datetime | None = None) -> str:
        """A new RUNNING run, started now unless told otherwise; returns its id."""
        run = self.client.create_run(
            self.experiment_id, _milliseconds(started), as_tags(tags), run_name=public_text(name)
        )
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Log in as few batches as MLflow allows. None values of params and tags are left out.

        The metrics are those of the moment `at`, which is now unless told otherwise.
        """
        from mlflow.entities import Param, RunTag

        if metrics:
            self.log_points(run_id, [Point(0, metrics, _milliseconds(at) or int(time.time() * 1000))])
        param_rows = [Param(key, value) for key, value in as_params(params or {}).items()]
        tag_rows = [RunTag(key, value) for key, value in as_tags(tags or {}).items()]
        for start in range(0, max(len(param_rows), len(tag_rows)), ENTITIES_PER_BATCH):
            batch = slice(start, start + ENTITIES_PER_BATCH)
            self.client.log_batch(run_id, [], param_rows[batch], tag_rows[batch])

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Log the points of curves in as few batches as MLflow allows.

        Non-finite metrics are counted and skipped: MLflow stores infinity as 1.8e308, which no chart survives.
        """
        from mlflow.entities import Metric

        values = [
            Metric(safe_key(key), float(value), point.milliseconds, point.step)
            for point in points
            for key, value in point.metrics.items()
        ]
        rows = [metric for metric in values if math.isfinite(metric.value)]
        with self._lock:
            self._skipped[run_id] = self._skipped.get(run_id, 0) + len(values) - len(rows)
        for start in range(0, len(rows), METRICS_PER_BATCH):
            self.client.log_batch(run_id, rows[start : start + METRICS_PER_BATCH])

    def log_curves(self, run_id: str, pipeline_run_id: str | None, mirror: str, points: Sequence[Point]) -> None:
        """On the step's run and, with the prefix `mirror`, on the pipeline run; system metrics would mix there."""
        self.log_points(run_id, points)
        if pipeline_run_id is not None:
            mirrored = [point._replace(metrics=_mirrored(point.metrics, mirror)) for point in points]
            self.log_points(pipeline_run_id, mirrored)

    def close(self, run_id: str, status: str, tags: Mapping[str, object], ended: datetime | None = None) -> None:
        """End a run, now unless told otherwise, with its last tags, among them how many metrics were skipped.

        Unless these say that it is incomplete, it is not: whoever called it so took a run for lost that went on.
        """
        with self._lock:
            skipped = self._skipped.get(run_id, 0)
        self.log(run_id, tags={**tags, SKIPPED_TAG: skipped or None})
        if tags.get(INCOMPLETE_TAG) is None and INCOMPLETE_TAG in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, INCOMPLETE_TAG)
        self.client.set_terminated(run_id, status, _milliseconds(ended))

    def close_tree(self, run_id: str, status: str, ended: int | None, why: str = LATE) -> None:
        """End a pipeline run that MLflow still shows as running, after those of its steps that it does.

        `ended` is in milliseconds since the epoch; None for now. `why` becomes a tag of theirs.
        """
        ours = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
        steps = self.client.search_runs([self.experiment_id], ours, max_results=1000)
        for run in (*steps, self.client.get_run(run_id)):
            if run.info.status == "RUNNING":
                self.log(run.info.run_id, tags={INCOMPLETE_TAG: why})
                self.client.set_terminated(run.info.run_id, status, ended)

    def log_inputs(
        self, run_id: str, items: Sequence[Produced], *, context: str, producers: Mapping[str, str]
    ) -> None:
        """Datasets and models that a run reads; `producers` maps digests to the runs that made them."""
        from mlflow.entities import LoggedModelInput

        datasets = [
            dataset_input(item, context=context, producer_run_id=producers.get(item.digest))
            for item in items
            if item.kind == "data"
        ]
        models = dict.fromkeys(
            self.model(item, name=item.name, source_run_id=producers.get(item.digest))
            for item in items
            if item.kind == "model"
        )
        if datasets or models:
            # MLflow looks a dataset up and then inserts it; two steps that read the same one would collide
            with self._input_lock:
                self.client.log_inputs(run_id, datasets, [LoggedModelInput(model_id) for model_id in models])

    def log_outputs(self, run_id: str, model_ids: Sequence[str]) -> None:
        """Models that a run made; those it lists already are left out, because MLflow refuses to list one twice."""
        from mlflow.entities import LoggedModelOutput

        if not model_ids:
            return
        listed = self.client.get_run(run_id).outputs
        known = {item.model_id for item in listed.model_outputs} if listed else set()
        if new := dict.fromkeys(model_id for model_id in model_ids if model_id not in known):
            self.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0) for model_id in new])

    def model(self, item: Produced, *, name: str, source_run_id: str | None, step: str | None = None) -> str:
        """Id of the external model with the content of `item`; one at a time, or threads would duplicate it."""
        tags = as_tags({"recipe": self.recipe, "step": step, "producer_run_id": source_run_id})
        with self._model_lock:
            self.models[item.digest] = external_model(
                self.client, self.experiment_id, item, name=name, source_run_id=source_run_id, tags=tags
            )
            return self.models[item.digest]

    def describe_model(self, item: Produced, note: str) -> None:
        """Give a model that `model` has met its description, unless it has one."""
        model_id = self.models[item.digest]
        if NOTE_TAG not in self.client.get_logged_model(model_id).tags:
            self.client.set_logged_model_tags(model_id, {NOTE_TAG: note})


def _milliseconds(when: datetime | None) -> int | None:
    """Since the epoch."""
    return None if when is None else int(when.timestamp() * 1000)


def _mirrored(metrics: Mapping[str, float], mirror: str) -> dict[str, float]:
    return {f"{mirror}{name}": value for name, value in metrics.items() if not name.startswith(SYSTEM)}
