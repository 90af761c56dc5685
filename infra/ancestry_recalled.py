"""What MLflow remembers of a store that cannot be read: commits as the tags of the steps' runs describe them.

Nothing here was checked against anything. Unknown stay the sizes, the versions of the steps' code, and whether any
commit or file is still as it was; settings are what MLflow's params keep of them, as text.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infra.ancestry import Records, Source
from infra.ancestry_mlflow import ARTIFACT_TAG
from infra.commits import DATA, Commit, Input, Output, UncheckedCommit
from infra.errors import RequestError
from infra.inventory import COMMITS, Inventory, Record, artifact_folder
from infra.lineage_runs import PROVENANCE_TAGS, RunIndex
from infra.objects import Objects
from infra.public import public_uri
from infra.verification import Fault

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNKNOWN = "unknown"
_NOT_KNOWN: Any = None
"""In place of a number; these records are not validated."""


class RecalledRecords(Records):
    """`Records` from MLflow's memory; there is nothing that they could contradict."""

    def _faults(self, record: Record, sources: tuple[Source, ...]) -> Iterator[Fault]:
        return iter(())


def recall(client: "MlflowClient", objects: Objects, outage: str) -> RecalledRecords:
    """What MLflow knows of the store `objects`, which cannot be read because of `outage`.

    Raises what MLflow raises, and `RequestError` when it has recorded nothing of this store.
    """
    index = RunIndex(client, [str(item.experiment_id) for item in client.search_experiments()])
    records: dict[str, Record] = {}
    elsewhere = set()
    # a cached step describes an artifact as well as the run that made it, which may be lost
    for run in sorted(index.runs.values(), key=lambda run: run.data.tags.get("cache") == "hit"):
        record = _record(run)
        if record is None:
            continue
        if record.commit.root == public_uri(objects.root):
            records.setdefault(record.artifact, record)
        else:
            elsewhere.add(record.commit.root)
    if not records:
        known = ", ".join(sorted(elsewhere)) or "none"
        raise RequestError(
            f"{outage}\nMLflow at {public_uri(client.tracking_uri)} has recorded nothing of this store;"
            f" name one that it knows with --store: {known}"
        )
    inventory = Inventory(public_uri(objects.root), tuple(records.values()), history=(), runs=(), heads=(), pins={})
    return RecalledRecords(objects, inventory, outage=outage)


def _record(run: "Run") -> Record | None:
    commit = _commit(run)
    if commit is None:
        return None
    modified = datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)
    return Record(f"{COMMITS}/{commit.step}/{commit.fingerprint}.json", modified, "", commit)


def _commit(run: "Run") -> Commit | None:
    """The commit that a step's run describes; None for any other run, and for one that did not finish."""
    tags, outputs = run.data.tags, _artifacts(run, "output")
    first_uri = next((uri for uri, _ in outputs.values()), "")
    root, inside, key = tags.get("artifact.uri", first_uri).partition(f"/{DATA}")
    if not inside or "fingerprint" not in tags:
        return None
    artifact = artifact_folder(f"{DATA}{key}")
    places = {
        name: (uri.removeprefix(f"{root}/{artifact}").lstrip("/"), digest)
        for name, (uri, digest) in outputs.items()
    }
    whole = next((digest for path, digest in places.values() if not path), UNKNOWN)
    inputs = {name: Input(digest=digest, uri=uri) for name, (uri, digest) in _artifacts(run, "input").items()}
    return UncheckedCommit.model_construct(
        root=root,
        step=artifact.split("/")[2],
        fingerprint=tags["fingerprint"],
        payload={"config": _nested(run.data.params.items())},
        artifact=artifact,
        digest=tags.get("artifact.digest", whole),
        bytes=_NOT_KNOWN,
        outputs={
            name: Output.model_construct(path=path, digest=digest, bytes=_NOT_KNOWN)
            for name, (path, digest) in places.items()
            if path
        },
        inputs=inputs,
        provenance=_provenance(run),
    )


def _provenance(run: "Run") -> dict[str, Any]:
    tags = run.data.tags
    ran = tags.get("cache") != "hit"
    told: dict[str, Any] = {name: tags[name] for name in PROVENANCE_TAGS if name in tags}
    if "git_dirty" in told:
        told["git_dirty"] = told["git_dirty"] == "True"
    return {
        **told,
        "label": tags.get("step"),
        "seconds": run.data.metrics.get("seconds") if ran else None,
        "mlflow_run_id": run.info.run_id if ran else tags.get("producer_run_id"),
    }


def _artifacts(run: "Run", role: str) -> dict[str, tuple[str, str]]:
    """{name: (uri, digest)} of a run's inputs or outputs, by its tags."""
    found: dict[str, dict[str, str]] = {}
    for tag, value in sorted(run.data.tags.items()):
        match = ARTIFACT_TAG.fullmatch(tag)
        if match is not None and match[1] == role:
            found.setdefault(match[2], {})[match[3]] = value
    return {name: (item["uri"], item["digest"]) for name, item in found.items() if item.keys() == {"uri", "digest"}}


def _nested(params: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`{"partition.rho": "0.7"}` as `{"partition": {"rho": "0.7"}}`."""
    config: dict[str, Any] = {}
    for path, value in sorted(params):
        *sections, name = path.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return config
