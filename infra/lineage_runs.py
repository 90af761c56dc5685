"""Which run of MLflow a recorded id means today: commits are immutable, and MLflow's database may have been lost.

A run that `forgetting lineage --relink` makes in place of a lost one says so in a tag; whoever follows an id from a
commit or a run record goes through here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infra.commits import Commit

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RELINKED_FROM = "relinked_from"
"""The lost run that a run stands for; see `run_reference`."""
PROVENANCE_TAGS = ("git_commit", "git_dirty", "host", "started")
"""What of a commit's provenance a step's run repeats in its tags, as a second witness."""
UNKNOWN_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for an id that is no run of its."""
RUNS_PER_PAGE = 100
"""A busy server answers for as many within the time that a request has."""


def run_reference(commit: Commit) -> str:
    """What a commit calls the run that made it: an id, or the artifact's folder where MLflow was down then."""
    return str(commit.provenance.get("mlflow_run_id") or commit.artifact)


def find_run(client: "MlflowClient", experiment_ids: Sequence[str], reference: str) -> "Run | None":
    """The run that `reference` means, or the one that was made in its place; None when MLflow has neither.

    Raises what MLflow raises when it cannot be asked.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(reference)
    except MlflowException as error:
        if error.error_code not in UNKNOWN_RUN:
            raise
    quoted = reference.replace("'", "")
    relinked = client.search_runs(list(experiment_ids), f"tags.{RELINKED_FROM} = '{quoted}'", max_results=1)
    return relinked[0] if relinked else None


class RunIndex:
    """All runs of some experiments, as they were at one look. Those in MLflow's trash count as held."""

    def __init__(self, client: "MlflowClient", experiment_ids: Sequence[str]) -> None:
        self.runs: dict[str, Run] = {}
        """By id, the newest first."""
        self._relinked: dict[str, Run] = {}
        self._children: dict[str, list[Run]] = {}
        for run in _all_runs(client, experiment_ids):
            tags = run.data.tags
            self.runs[run.info.run_id] = run
            if RELINKED_FROM in tags:
                self._relinked[tags[RELINKED_FROM]] = run
            if "mlflow.parentRunId" in tags:
                self._children.setdefault(tags["mlflow.parentRunId"], []).append(run)

    def find(self, reference: str) -> "Run | None":
        """As `find_run`."""
        return self.runs.get(reference) or self._relinked.get(reference)

    def child(self, parent_id: str, step: str, fingerprint: str) -> "Run | None":
        """The child run of a step; of several (a step that was tried again) a finished one, the newest."""
        found = [
            run
            for run in self._children.get(parent_id, ())
            if run.data.tags.get("step") == step and run.data.tags.get("fingerprint") == fingerprint
        ]
        return next((run for run in found if run.info.status == "FINISHED"), found[0] if found else None)


def _all_runs(client: "MlflowClient", experiment_ids: Sequence[str]) -> "list[Run]":
    from mlflow.entities import ViewType

    runs: list[Run] = []
    token: str | None = None
    while token is None or token:
        page = client.search_runs(
            list(experiment_ids), "", ViewType.ALL, RUNS_PER_PAGE, ["attributes.start_time DESC"], token
        )
        runs += page
        token = page.token or ""
    return runs
