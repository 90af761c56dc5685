"""`forgetting lineage`: from a model back to the raw data, and whether everything on the way is still so.

The store's commits are walked; MLflow turns the names of registered models into addresses, and is a second witness,
or the only one where the store cannot be read.
"""

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from flows.lineage_target import Witness, find_target
from infra.ancestry import Ancestry, Records
from infra.ancestry_check import check_artifacts
from infra.ancestry_mlflow import ModelVersion, check_mlflow, check_version, versions_of
from infra.lineage_connection import outages
from infra.settings import Settings
from infra.verification import Fault

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass
class Lineage:
    """The answer to one question."""

    ancestry: Ancestry
    versions: list[ModelVersion]
    mlflow: str
    """Address of MLflow."""
    outage: str | None
    """Why MLflow could not be asked."""
    store_outage: str | None
    """Why the store could not be read: then all of this is what MLflow remembers."""
    faults: list[Fault] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    """Steps whose run MLflow does not hold; only looked for when everything is checked."""
    checked: bool = False

    @property
    def evidence(self) -> dict[str, Any]:
        """The part of `--json` that says who was asked and what is wrong."""
        return {
            "store_unreachable": self.store_outage,
            "mlflow": {"uri": self.mlflow, "unreachable": self.outage, "without_run": self.unrecorded},
            "checked": self.checked,
            "faults": [asdict(fault) for fault in self.faults],
        }


def trace(argument: str, store: str | None, *, check: bool) -> Lineage:
    """Walk back from `argument`: a registered model, an address in a store, a digest or a fingerprint.

    A store that cannot be read is what MLflow remembers of it, and then nothing can be checked. Raises
    `RequestError` for an argument that is nothing or several things, and `StoreError` when neither answers.
    """
    settings = Settings.from_environment(store=store)
    witness = Witness(settings.tracking_uri)
    records, record, version = find_target(argument, settings, store, witness)
    ancestry = records.ancestry(record)
    lineage = Lineage(ancestry, [version] if version else [], witness.uri, None, records.outage, ancestry.faults)
    check = check and records.outage is None
    if check:
        _check_store(lineage, records)
    try:
        if witness.client is not None:
            _ask_mlflow(lineage, records, witness.client, version, check=check)
    except outages() as error:
        witness.lose(error)
    lineage.outage = witness.outage
    return lineage


def _check_store(lineage: Lineage, records: Records) -> None:
    from flows.transfer_bar import transfer_bar

    with transfer_bar("check") as progress:
        lineage.faults += check_artifacts(records, lineage.ancestry, progress)
    lineage.checked = True


def _ask_mlflow(
    lineage: Lineage, records: Records, client: "MlflowClient", version: ModelVersion | None, *, check: bool
) -> None:
    if version is None:
        lineage.versions = versions_of(client, lineage.ancestry.target.record.commit)
    if not check:
        return
    for known in lineage.versions:
        lineage.faults += check_version(records, lineage.ancestry, known)
    faults, lineage.unrecorded = check_mlflow(client, records, lineage.ancestry)
    lineage.faults += [fault for fault in faults if fault not in lineage.faults]


def show(lineage: Lineage) -> None:
    """Tell what was not asked on standard error, and the tree, faults and verdict on standard output."""
    from rich.console import Console

    from flows.artifact_views import faults_view
    from flows.lineage_view import lineage_tree

    console = Console()
    console.print(lineage_tree(lineage.ancestry, lineage.versions), highlight=False, soft_wrap=True)
    if lineage.faults:
        console.print(faults_view(lineage.ancestry.root, lineage.faults), highlight=False, soft_wrap=True)
    if lineage.checked:
        steps = len(lineage.ancestry.steps)
        wrong = f"{len(lineage.faults)} faults" if lineage.faults else "all as committed"
        witnesses = "the store alone" if lineage.outage else f"the store and MLflow at {lineage.mlflow}"
        console.print(f"{steps} artifacts read, checked with {witnesses}: {wrong}", highlight=False, soft_wrap=True)


def warn(lineage: Lineage) -> None:
    """Say on standard error what the answer does not rest on."""
    if lineage.outage is not None:
        message = f"MLflow at {lineage.mlflow} cannot be asked ({lineage.outage}); this is from the store alone"
        print(f"warning: {message}", file=sys.stderr)
    if lineage.store_outage is not None:
        message = (
            f"{lineage.store_outage}; this is from MLflow at {lineage.mlflow} alone: nothing could be checked,"
            " sizes and the versions of the steps are not known, and settings are what it keeps of them, as text"
        )
        print(f"warning: {message}", file=sys.stderr)
    if lineage.unrecorded:
        steps = ", ".join(lineage.unrecorded)
        print(f"warning: MLflow at {lineage.mlflow} holds no run of: {steps}", file=sys.stderr)
