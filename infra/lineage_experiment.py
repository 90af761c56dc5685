"""What an auditor finds on the experiment's page: what it is about, and a view with the columns that matter.

MLflow 3 shows no metric, param or tag as a column until one asks for it, and keeps the choice in the browser. A
saved view is a tag of the experiment: everybody has it under "Views", and a link opens it.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE_TAG = "mlflow.note.content"
_VIEW = "pipeline-runs"
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"
_VIEW_NAME = "Pipeline runs"
_COLUMNS = (
    "tags.`recipe`",
    "params.`rho`",
    "metrics.`steps_ran`",
    "metrics.`steps_cached`",
)
MAX_COLUMNS = 16
"""More do not fit a screen; the other metrics are on the run's page."""


def view_path(experiment_id: str) -> str:
    """Address of the experiment's page with the columns chosen."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={_VIEW}&workflowType=machine_learning"


def describe_experiment(client: "MlflowClient", experiment_id: str) -> None:
    """Give the experiment its description and its view, once; both may be edited in MLflow afterwards."""
    tags = client.get_experiment(experiment_id).tags
    if NOTE_TAG not in tags:
        client.set_experiment_tag(experiment_id, NOTE_TAG, _description(experiment_id))
    if _VIEW_TAG not in tags:
        client.set_experiment_tag(experiment_id, _VIEW_TAG, _view(_COLUMNS))


def show_metrics(client: "MlflowClient", experiment_id: str, metrics: Iterable[str]) -> None:
    """Add columns for `metrics` to the view, as far as there is room."""
    shown = _columns(client.get_experiment(experiment_id).tags.get(_VIEW_TAG, ""))
    wanted = dict.fromkeys([*shown, *(f"metrics.`{name}`" for name in metrics)])
    if len(shown) < min(len(wanted), MAX_COLUMNS):
        client.set_experiment_tag(experiment_id, _VIEW_TAG, _view(list(wanted)[:MAX_COLUMNS]))


def _columns(view: str) -> list[str]:
    """The columns of a view that this module wrote; the basic ones instead of any other."""
    try:
        return list(json.loads(json.loads(view)["state"])["selectedColumns"])
    except (ValueError, KeyError, TypeError):
        return list(_COLUMNS)


def _view(columns: Iterable[str]) -> str:
    state: dict[str, Any] = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": list(columns),
    }
    envelope = {"name": _VIEW_NAME, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps(envelope)


def _description(experiment_id: str) -> str:
    return (
        # the page shows no more than this line until one asks for it
        f"[Runs with recipe, ρ, metrics and cached steps]({view_path(experiment_id)}) of models fine-tuned by "
        "*forgetting*.\n\n"
        "The tokens that a reference model has learned are trained on, the rest is pushed away.\n\n"
        "A row is a pipeline run; its children are its steps, cached or computed. A run's description leads to "
        "its final model, and that model's to the reference model, the data and the raw files."
    )
