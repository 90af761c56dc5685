"""`forgetting lineage`: from a model back to the raw data, and whether everything on the way is still so.

The store's commits are walked; MLflow turns the names of registered models into addresses, and is a second witness.
"""

import re
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from infra.ancestry import Ancestry, Records, check_artifacts, read_all_records
from infra.ancestry_mlflow import (
    ModelVersion,
    check_mlflow,
    check_version,
    find_version,
    record_of,
    versions_of,
)
from infra.commits import DATA
from infra.errors import RequestError
from infra.inventory import SHORTEST_PREFIX, Record
from infra.lineage_connection import open_for_reading, outages
from infra.public import public_text, public_uri
from infra.settings import Settings
from infra.store import open_store
from infra.urls import open_objects
from infra.verification import Fault

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<version>\d+))?")
_HEX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}")


@dataclass
class Lineage:
    """The answer to one question."""

    ancestry: Ancestry
    versions: list[ModelVersion]
    mlflow: str
    """Address of MLflow."""
    outage: str | None
    """Why MLflow could not be asked."""
    faults: list[Fault] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    """Steps whose run MLflow does not hold; only looked for when everything is checked."""
    checked: bool = False

    @property
    def evidence(self) -> dict[str, Any]:
        """The part of `--json` that says who was asked and what is wrong."""
        return {
            "mlflow": {"uri": self.mlflow, "unreachable": self.outage, "without_run": self.unrecorded},
            "checked": self.checked,
            "faults": [asdict(fault) for fault in self.faults],
        }


class _Witness:
    """MLflow, as long as it answers."""

    def __init__(self, tracking_uri: str) -> None:
        self.uri = public_uri(tracking_uri)
        self.outage: str | None = None
        self.client: MlflowClient | None = None
        try:
            self.client = open_for_reading(tracking_uri)
        except outages() as error:
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """From here on it is not asked any more."""
        self.client = None
        self.outage = f"{type(error).__name__}: {public_text(' '.join(str(error).split()))[:300]}"


def trace(argument: str, store: str | None, *, check: bool) -> Lineage:
    """Walk back from `argument`: a registered model, an address in a store, a digest or a fingerprint.

    Raises `RequestError` for an argument that is nothing or several things, and `StoreError`.
    """
    settings = Settings.from_environment(store=store)
    witness = _Witness(settings.tracking_uri)
    if f"/{DATA}" in argument or argument.startswith(DATA) or _HEX.fullmatch(argument):
        records = _records(settings, store, argument)
        record, version = records.find(_inside(records, argument)), None
    else:
        records, record, version = _model(settings, store, witness, argument)
    ancestry = records.ancestry(record)
    lineage = Lineage(ancestry, [version] if version else [], witness.uri, None, ancestry.faults)
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


def _model(
    settings: Settings, store: str | None, witness: _Witness, argument: str
) -> tuple[Records, Record, ModelVersion | None]:
    match = _MODEL.fullmatch(argument)
    if match is None:
        raise RequestError(
            f"{public_uri(argument)!r} is no model and no artifact; expected a registered model such as `demo` or"
            f" `demo/3`, an address below STORE/{DATA}, a digest, a fingerprint, or at least"
            f" {SHORTEST_PREFIX} of their first hexadecimal digits"
        )
    if witness.client is not None:
        try:
            version = find_version(witness.client, match["name"], match["version"])
        except outages() as error:
            witness.lose(error)
        else:
            records = _records(settings, store, version.uri)
            return records, record_of(records, version), version
    records = _records(settings, store, "")
    return records, _last_model(records, argument, match, witness), None


def _last_model(records: Records, argument: str, match: re.Match[str], witness: _Witness) -> Record:
    """Without MLflow: the final model of the last completed run of the recipe that a model is named after."""
    root = records.inventory.root
    gone = f"MLflow at {witness.uri} cannot be asked ({witness.outage})"
    ask = "name the artifact by its address, digest or fingerprint (see `artifacts ls --step forget`)"
    if match["version"] is not None:
        raise RequestError(f"{gone}, and only it knows the versions of a model such as {argument!r}; {ask}")
    try:
        head = open_store(root).read_head(match["name"])
    except ValueError:  # no name of a recipe
        head = None
    final = head["steps"].get("forget") if head else None
    record = records.inventory.by_step.get((final["step"], final["fingerprint"])) if final else None
    if record is None:
        raise RequestError(f"{gone}, and {root} has no completed run of a recipe {match['name']!r}; {ask}")
    return record


def _records(settings: Settings, store: str | None, address: str) -> Records:
    """The commits of the store that was named, else of the one that `address` lies in, else of the usual one."""
    root, inside, _ = address.partition(f"/{DATA}")
    named = root if inside and store is None else settings.store_url
    return read_all_records(open_objects(named))


def _inside(records: Records, argument: str) -> str:
    """An address as this store spells it, whatever way the store was reached then."""
    _, inside, key = argument.partition(f"/{DATA}")
    return f"{records.inventory.root}/{DATA}{key}" if inside else argument


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
    if lineage.unrecorded:
        steps = ", ".join(lineage.unrecorded)
        print(f"warning: MLflow at {lineage.mlflow} holds no run of: {steps}", file=sys.stderr)
