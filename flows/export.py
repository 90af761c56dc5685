"""`forgetting artifacts export`: finds a model, its base and its lineage, and hands them to the core."""

import shutil
import uuid
from functools import partial
from pathlib import Path

from forgetting_core.config import ExecutionIdentity
from forgetting_core.errors import InputError
from forgetting_core.export import Ancestor, Lineage, export_full, export_merged
from forgetting_core.model_files import is_adapter, model_files
from infra.commits import DATA, Commit
from infra.digests import DigestCache
from infra.errors import RequestError, SourceError
from infra.inventory import Inventory, Record
from infra.objects import Objects
from infra.plan import flatten
from infra.settings import Settings
from infra.sources import Ref, Sources
from infra.staging import Progress
from infra.store import Store


def export(
    settings: Settings,
    objects: Objects,
    inventory: Inventory,
    record: Record,
    into: Path,
    *,
    merge: bool,
    base: str | None,
    trust_remote_code: bool,
    progress: Progress,
) -> Lineage:
    """Write the model of a commit to the new folder `into`, which appears when it is whole; what its card states.

    Raises `InputError` and `RequestError` for what is no such model, a base that is missing or another one, code of
    the base that would have to run and is not trusted, and a folder that is in use; `StoreError`.
    """
    commit = record.commit
    if "base" not in commit.inputs:
        raise RequestError(
            f"{commit.uri} ({record.label}) is no fine-tuned model; copy it with `forgetting artifacts fetch`"
        )
    into = into.expanduser().absolute()
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise RequestError(f"{into} is not empty; name a new or empty folder")
    digests = DigestCache(settings.digest_cache)
    store = Store(objects)
    staged = settings.work_dir / "staged"
    checkpoint = store.stage(commit.uri, commit.digest, staged, digests, progress=progress)
    if merge != is_adapter(checkpoint):
        raise RequestError(
            f"{commit.uri} is a full model already; leave out --merge"
            if merge
            else f"{commit.uri} is a LoRA adapter; add --merge for a plain model, or copy the adapter with"
            " `forgetting artifacts fetch`"
        )
    code = trusts_code(commit)
    if merge and code and not trust_remote_code:
        raise RequestError(
            f"{commit.uri} was trained with the code that its base model brings along, and merging runs that code:"
            " read it, and add --trust-remote-code"
        )
    lineage = describe(inventory, record, into.name)

    into.parent.mkdir(parents=True, exist_ok=True)
    temporary = into.parent / f".{into.name}.{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        if merge:
            found = _base(settings, store, record, base, digests, progress)
            digest = commit.inputs["base"].digest
            export_merged(checkpoint, found, digest, temporary, lineage, trust_remote_code=code)
        else:
            export_full(checkpoint, temporary, lineage, code=code)
        if into.exists():
            into.rmdir()
        temporary.rename(into)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return lineage


def trusts_code(commit: Commit) -> bool:
    """Whether a step was computed with code that its model brings along."""
    shared = commit.payload["config"].get("execution", {})
    return bool(ExecutionIdentity.model_validate(shared).trust_remote_code)


def describe(inventory: Inventory, record: Record, name: str) -> Lineage:
    """The lineage of a fine-tuned model as far back as the store knows it."""
    base = record.commit.inputs["base"]
    chain = inventory.ancestors_of(record)
    known = {item.artifact for item in chain}
    sources: dict[str, tuple[str, str, str]] = {}
    for item in chain:
        folders = inventory.inputs_of(item)
        for given, source in item.commit.inputs.items():
            if source.digest != base.digest and (item is record or folders.get(given) not in known):
                sources.setdefault(source.digest, (f"{item.label}: {given}", str(source.uri), source.digest))
    labels = [item.commit.payload["config"] for item in chain if item.commit.step == "partition"]
    return Lineage(
        name=name,
        base=str(base.uri),
        base_digest=base.digest,
        training={
            **flatten(record.commit.payload["config"]),
            "code (git commit)": record.commit.provenance.get("git_commit"),
        },
        partition=flatten(labels[0]) if labels else {},
        data=list(sources.values()),
        chain=[
            Ancestor(item.label, item.commit.fingerprint, item.commit.digest, item.commit.uri) for item in chain
        ],
    )


def _base(
    settings: Settings, store: Store, record: Record, given: str | None, digests: DigestCache, progress: Progress
) -> Path:
    """The base model that the adapter was trained on, on this machine, its digest verified."""
    expected = record.commit.inputs["base"]
    uri = given or expected.uri or ""
    if given is None and uri.startswith(f"{store.root}/{DATA}"):
        return store.stage(uri, expected.digest, settings.work_dir / "staged", digests, progress=progress)
    path, revision = uri, None
    if uri.startswith("hf://"):
        path, _, revision = uri.removeprefix("hf://").rpartition("@")
    try:
        found = Sources(digests, settings.work_dir / "raw", fetch=True).model(
            path, revision, partial(model_files, code=trusts_code(record.commit)), field="base"
        )
    except (SourceError, InputError) as error:
        raise InputError(
            f"the base model of {record.commit.uri} cannot be found at {uri}: {error};"
            " name a folder that holds it with --base DIR"
        ) from error
    assert isinstance(found, Ref)  # nothing stays unresolved when it may be fetched
    if found.digest != expected.digest:
        raise InputError(
            f"the model at {uri} is not the base of {record.commit.uri}: its digest is {found.digest}, expected"
            f" {expected.digest}; name a folder that holds the right one with --base DIR"
        )
    return found.local[0]
