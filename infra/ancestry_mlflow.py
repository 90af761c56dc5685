"""What MLflow says about artifacts of the store: which one a registered model is, and whether it agrees.

Reads only. Raises what MLflow raises (`lineage_connection.outages`) where not said otherwise. MLflow is imported by
whoever makes the client, because it takes a second.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.ancestry import Ancestor, Ancestry, Records, is_partition, rho_of
from infra.commits import DATA, Commit
from infra.errors import RequestError
from infra.inventory import Record
from infra.lineage import CURRENT_ALIAS
from infra.lineage_mlflow import safe_key
from infra.lineage_runs import PROVENANCE_TAGS, find_run, run_reference
from infra.public import public_uri
from infra.verification import MISSING, Fault

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACT_TAG = re.compile(r"(input|output)\.(.+)\.(digest|uri)")


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model, as its tags describe it."""

    name: str
    version: str
    digest: str
    uri: str
    rho: str | None
    source: str
    """`models:/{id}` of the LoggedModel."""

    @property
    def label(self) -> str:
        """`name/version`."""
        return f"{self.name}/{self.version}"


def find_version(client: "MlflowClient", name: str, version: str | None) -> ModelVersion:
    """A version of a registered model, by default the current one. Raises `RequestError` with what there is."""
    names = {str(model.name) for model in client.search_registered_models(max_results=1000)}
    if name not in names:
        known = ", ".join(sorted(names)) or "none"
        raise RequestError(
            f"{name!r} is no registered model, and no URI or digest of an artifact;"
            f" MLflow at {public_uri(client.tracking_uri)} has the models: {known}"
        )
    found = {str(item.version): item for item in client.search_model_versions(f"name = '{name}'")}
    if version is None:
        version = client.get_registered_model(name).aliases.get(CURRENT_ALIAS)
    if version is None or str(version) not in found:
        wanted = f"no version {version!r}" if version else f"no version with the alias {CURRENT_ALIAS!r}"
        known = ", ".join(f"{name}/{number}" for number in sorted(found, key=int)) or "none"
        raise RequestError(f"the registered model {name!r} has {wanted}; its versions are: {known}")
    return _version(found[str(version)])


def record_of(records: Records, version: ModelVersion) -> Record:
    """The commit of a registered version: by its address, or else by its digest. Raises `RequestError`."""
    inventory = records.inventory
    at = [item for item in inventory.commits if _place(item.commit.uri) == _place(version.uri)]
    same = [item for item in inventory.commits if item.commit.digest == version.digest]
    if found := at or same:
        return found[0]
    raise RequestError(
        f"{version.label} is {version.uri} with the digest {version.digest}, and no commit in {inventory.root}"
        " names either; name the store that holds it with --store"
    )


def versions_of(client: "MlflowClient", commit: Commit) -> list[ModelVersion]:
    """The registered versions whose content a commit is, in order."""
    found = client.search_model_versions(f"tags.digest = '{commit.digest}'")
    return sorted(map(_version, found), key=lambda item: (item.name, int(item.version)))


def check_version(records: Records, ancestry: Ancestry, version: ModelVersion) -> list[Fault]:
    """Whether the tags of a registered version agree with the commit, and its ρ with that of the labels."""
    digests, where = {"": ancestry.target.record.commit.digest}, f"models:/{version.label}"
    faults = list(_tag_faults(records, where, digests, version.digest, version.uri))
    if version.rho is not None and version.rho not in (known := _rhos(records, ancestry)):
        faults.append(Fault(where, "rho", " or ".join(sorted(known)) or MISSING, version.rho))
    return faults


def _rhos(records: Records, ancestry: Ancestry) -> set[str]:
    """ρ of the labels on the way; several where different ρ gave the same labels."""
    labels = {step.record.commit.digest for step in ancestry.steps if is_partition(step.record.commit)}
    found = (item.commit for item in records.inventory.commits if item.commit.digest in labels)
    return {rho for commit in found if (rho := rho_of(commit)) is not None} | {ancestry.rho or ""} - {""}


def check_mlflow(client: "MlflowClient", records: Records, ancestry: Ancestry) -> tuple[list[Fault], list[str]]:
    """Compare runs, logged models and registered versions with the commits: faults, and steps without a run."""
    experiments = [str(item.experiment_id) for item in client.search_experiments()]
    faults: list[Fault] = []
    unrecorded = []
    for step in ancestry.steps:
        run = find_run(client, experiments, run_reference(step.record.commit))
        if run is None:
            unrecorded.append(step.record.label)
        else:
            faults += _run_faults(step, run)
        for model in _models(client, experiments, step.record.commit, run):
            faults += _model_faults(client, records, step.record.commit, model)
    return list(dict.fromkeys(faults)), unrecorded


def _run_faults(step: Ancestor, run: Any) -> Iterator[Fault]:
    commit, tags = step.record.commit, run.data.tags
    where = f"MLflow run {run.info.run_id} of {step.record.label}"
    if tags.get("fingerprint") != commit.fingerprint:
        yield Fault(where, "fingerprint", commit.fingerprint, tags.get("fingerprint", MISSING))
    known = {name: str(commit.provenance.get(name)) for name in PROVENANCE_TAGS}
    for tag, value in {**known, "artifact.digest": commit.digest}.items():
        if tag in tags and tags[tag] != value:
            yield Fault(where, tag, value, tags[tag])
    inputs = {safe_key(f"input.{name}.digest"): item.digest for name, item in commit.inputs.items()}
    outputs = _digests(commit)
    for tag, value in sorted(tags.items()):
        match = ARTIFACT_TAG.fullmatch(tag)
        if match is None or match[3] != "digest":
            continue
        if match[1] == "input" and value != inputs.get(tag):
            yield Fault(where, tag, inputs.get(tag, MISSING), value)
        elif match[1] == "output" and value not in outputs.values():
            yield Fault(where, tag, outputs.get(match[2], commit.digest), value)


def _models(client: "MlflowClient", experiments: list[str], commit: Commit, run: Any) -> list[Any]:
    """The logged models with the content of a commit, and those that its run says it made."""
    found = {}
    for digest in sorted(set(_digests(commit).values())):
        for model in client.search_logged_models(experiments, filter_string=f"tags.digest = '{digest}'"):
            found[model.model_id] = model
    for output in run.outputs.model_outputs if run and run.outputs else []:
        found.setdefault(output.model_id, client.get_logged_model(output.model_id))
    return list(found.values())


def _model_faults(client: "MlflowClient", records: Records, commit: Commit, model: Any) -> Iterator[Fault]:
    digests = _digests(commit)
    where = f"MLflow model {model.model_id}"
    yield from _tag_faults(
        records, where, digests, model.tags.get("digest", MISSING), model.tags.get("uri", MISSING)
    )
    for version in client.search_model_versions(f"tags.model_id = '{model.model_id}'"):
        known = _version(version)
        yield from _tag_faults(records, f"models:/{known.label}", digests, known.digest, known.uri)


def _tag_faults(records: Records, where: str, digests: dict[str, str], digest: str, uri: str) -> Iterator[Fault]:
    """`digests` is what the commit made; `digest` and `uri` are MLflow's tags.

    The same content may have been made twice, so an address is right when any commit says it holds that content.
    """
    if digest not in digests.values():
        yield Fault(where, "digest", " or ".join(sorted(set(digests.values()))), digest)
        return
    commits = [item.commit for item in (*records.inventory.commits, *records.inventory.history)]
    places = sorted(
        public_uri(f"{commit.uri}/{path}".rstrip("/"))
        for commit in commits
        for path, known in _digests(commit).items()
        if known == digest
    )
    if _place(uri) not in map(_place, places):
        yield Fault(where, "uri", " or ".join(places) or MISSING, uri)


def _digests(commit: Commit) -> dict[str, str]:
    """{part: digest}, the whole artifact under the empty name."""
    return {"": commit.digest} | {output.path: output.digest for output in commit.outputs.values()}


def _place(uri: str) -> str:
    """The address inside the store, so that a store that was moved still agrees."""
    before, data, key = uri.partition(f"/{DATA}")
    return key if data else before


def _version(item: Any) -> ModelVersion:
    tags = item.tags
    return ModelVersion(
        name=str(item.name),
        version=str(item.version),
        digest=tags.get("digest", MISSING),
        uri=tags.get("uri", MISSING),
        rho=tags.get("rho"),
        source=str(item.source),
    )
