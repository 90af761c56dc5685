"""The curves that a checkpoint was stored with, and those that MLflow has."""

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

Curves = dict[str, list[tuple[int, int, float]]]
"""{name: [(step, milliseconds, value)]}"""


def stored_curves(checkpoint: Path) -> Curves:
    """As the file beside the weights has them."""
    curves: Curves = {}
    for line in (checkpoint / "aux" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        step, milliseconds = record.pop("step"), record.pop("milliseconds")
        for name, value in record.items():
            curves.setdefault(f"train/{name}", []).append((step, milliseconds, value))
    return curves


def recorded_curves(client: MlflowClient, run: Run, prefix: str) -> Curves:
    """As MLflow has them on `run` under `prefix`, duplicates included."""
    return {
        name.removeprefix(prefix): sorted((m.step, m.timestamp, m.value) for m in history)
        for name in run.data.metrics
        if name.startswith(f"{prefix}train/")
        for history in [client.get_metric_history(run.info.run_id, name)]
    }


def assert_mlflow_has_the_stored_curves(client: MlflowClient, step: dict[str, Any], label: str) -> Run:
    """On the run that computed `step` (of a run's JSON), and mirrored on its pipeline run, which is returned."""
    stored = stored_curves(Path(step["uri"]))
    (experiment,) = client.search_experiments(filter_string="name = 'forgetting'")
    computed = (
        f"tags.fingerprint = '{step['fingerprint']}' and tags.cache = 'miss' and attributes.status = 'FINISHED'"
    )
    (run,) = client.search_runs([experiment.experiment_id], computed)
    pipeline = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert recorded_curves(client, run, "") == stored
    assert recorded_curves(client, pipeline, "" if label == "forget" else f"{label}/") == stored
    assert client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
    assert not [name for name in pipeline.data.metrics if "system/" in name]
    return pipeline
