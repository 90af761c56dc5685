"""All that MLflow holds, with names in place of its random ids: two databases that say the same compare equal."""

import re
from typing import Any

from mlflow import MlflowClient

EXPERIMENT = "forgetting"


def snapshot(tracking_uri: str) -> dict[str, Any]:
    """{"runs": {name: what it says}, "models": …, "versions": …}."""
    client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "", max_results=10000)
    models = client.search_logged_models([experiment.experiment_id], max_results=100)
    names = _names(runs) | {model.model_id: f"model {model.tags['digest'][:12]}" for model in models}

    def named(text: str) -> str:
        return re.sub(r"(?:m-)?[0-9a-f]{32}", lambda match: names.get(match.group(), match.group()), text)

    versions = [item for model in client.search_registered_models() for item in _versions(client, model)]
    return {
        "runs": {names[run.info.run_id]: _run(client, run, named) for run in runs},
        "models": {
            names[model.model_id]: {
                "name": model.name,
                "tags": {key: _lines(named(value)) for key, value in model.tags.items()},
                "source": named(model.source_run_id or ""),
            }
            for model in models
        },
        "versions": {
            f"{version.name}/{version.version}": {
                "run": named(version.run_id),
                "source": named(version.source),
                "description": _lines(named(version.description)),
                "tags": {key: named(value) for key, value in version.tags.items()},
                "aliases": list(version.aliases),
            }
            for version in versions
        },
    }


def _names(runs: list[Any]) -> dict[str, str]:
    """`run 1` is the pipeline run that started first, `run 1 split` one of its steps."""
    pipelines = sorted(
        (run for run in runs if run.data.tags["step"] == "pipeline"), key=lambda run: run.info.start_time
    )
    names = {run.info.run_id: f"run {number}" for number, run in enumerate(pipelines, 1)}
    children = {
        run.info.run_id: f"{names[run.data.tags['mlflow.parentRunId']]} {run.data.tags['step']}"
        for run in runs
        if run.info.run_id not in names
    }
    return names | children


def _versions(client: MlflowClient, model: Any) -> list[Any]:
    found = client.search_model_versions(f"name = '{model.name}'")
    return [client.get_model_version(item.name, item.version) for item in found]


def _run(client: MlflowClient, run: Any, named: Any) -> dict[str, Any]:
    metrics = {
        metric: sorted(_point(metric, point) for point in client.get_metric_history(run.info.run_id, metric))
        for metric in run.data.metrics
    }
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": {key: _lines(named(value)) for key, value in run.data.tags.items()},
        "metrics": metrics,
        "datasets": sorted(_dataset(item, named) for item in run.inputs.dataset_inputs),
        "model_inputs": sorted(named(item.model_id) for item in run.inputs.model_inputs),
        "model_outputs": sorted(named(item.model_id) for item in run.outputs.model_outputs) if run.outputs else [],
    }


def _point(metric: str, point: Any) -> tuple[float, ...]:
    """With its time, where it is of a curve; a single value may be told at any moment."""
    return (point.step, point.value, point.timestamp) if "train/" in metric else (point.step, point.value)


def _lines(text: str) -> list[str]:
    """The cells of a table, and what they list, in no order.

    Of two steps that do not need each other either may have come first, and a commit keeps inputs by their names.
    """
    return sorted(re.split(r" ?\| ?|, |\n", text))


def _dataset(item: Any, named: Any) -> tuple[str, str, str, list[tuple[str, str]]]:
    dataset = item.dataset
    return dataset.name, dataset.digest, dataset.source, sorted((tag.key, named(tag.value)) for tag in item.tags)
