"""What `forgetting lineage --relink` says that it did."""

from typing import Any

from flows.relink import Relinked


def relink_document(relinked: Relinked) -> dict[str, Any]:
    """The form of `lineage --relink --json`."""
    return {
        "store": relinked.store,
        "mlflow": relinked.mlflow,
        "runs": relinked.looked_at,
        "changes": [
            {
                "action": change.action,
                "flow_run_id": change.past.flow_run_id,
                "recipe": change.past.recipe,
                "status": change.past.status,
                "mlflow_run_id": change.run_id,
                "steps": [step.label for step in change.past.steps],
            }
            for change in relinked.changes
        ],
        "omissions": relinked.omissions,
        "left_open": relinked.left_open,
    }


def show_relinked(relinked: Relinked) -> None:
    """A line per run that was changed, and what is missing from it."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for change in relinked.changes:
        past = change.past
        name = " ".join(filter(None, (past.recipe, past.opening.get("variant"))))
        console.print(
            f"{change.action} {name} of {past.started:%Y-%m-%d %H:%M} UTC, {past.status}, {len(past.steps)} steps:"
            f" MLflow run {change.run_id}"
        )
    for omission in relinked.omissions:
        console.print(f"left out: {omission}")
    for run_id, why in relinked.left_open.items():
        console.print(f"left open: MLflow run {run_id}: {why}")
    if not relinked.changes:
        console.print(
            f"nothing changed: MLflow at {relinked.mlflow} holds the {relinked.looked_at} flow runs that"
            f" {relinked.store} knows"
        )
