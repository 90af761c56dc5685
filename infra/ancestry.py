"""Where an artifact comes from, as the store's commits tell it, and whether everything on the way is still so.

Commits are read as they stand, so that one that was altered is a fault with a name and not the end of the walk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from infra.commits import Commit, UncheckedCommit, decode
from infra.errors import RequestError
from infra.fingerprint import fingerprint
from infra.folder_objects import FolderObjects
from infra.inventory import COMMITS, HISTORY, Inventory, Record, artifact_folder, read_records
from infra.objects import Objects, StoreError
from infra.verification import MISSING, Fault


@dataclass(frozen=True)
class Source:
    """One input of a step."""

    name: str
    digest: str
    uri: str | None
    record: Record | None
    """The commit that made it; None for what lies outside the store, and for what no commit names any more."""
    inside: bool
    """Whether its address is in the store."""
    is_file: bool
    """Whether it is one file of an artifact, such as a model's curves: its manifest knows it, and no commit."""

    @property
    def part(self) -> str:
        """Which part of the commit's artifact it is; empty: all of it."""
        if self.record is None or self.uri is None:
            return ""
        return self.uri.removeprefix(self.record.commit.uri).lstrip("/")


@dataclass(frozen=True)
class Ancestor:
    """One step on the way back."""

    record: Record
    sources: tuple[Source, ...]
    faults: tuple[Fault, ...]
    """What is wrong with its commit, as far as reading it tells."""

    @property
    def rho(self) -> str | None:
        """ρ, for a partition that has one."""
        return rho_of(self.record.commit)

    @property
    def threshold(self) -> str | None:
        """The threshold of influence (nats), for a partition that has one instead."""
        return partition_field(self.record.commit, "threshold")

    @property
    def labelling(self) -> str | None:
        """By what the positive tokens were chosen, for a partition that says so: `influence`, or a control."""
        return partition_field(self.record.commit, "labelling")

    @property
    def positive_share(self) -> float | None:
        """The share that came out positive, for a partition that says so."""
        return self.record.commit.summary.get("positive_share")


@dataclass(frozen=True)
class Ancestry:
    """A step and everything that went into it."""

    root: str
    """Of the store."""
    steps: tuple[Ancestor, ...]
    """The step itself, then what was made later before what was made earlier."""

    @property
    def target(self) -> Ancestor:
        """The step that was asked for."""
        return self.steps[0]

    @property
    def by_artifact(self) -> dict[str, Ancestor]:
        """The steps by the folder of their artifact."""
        return {step.record.artifact: step for step in self.steps}

    @property
    def rho(self) -> str | None:
        """ρ of the partition on the way, if there is one."""
        return self.partition.rho if self.partition else None

    @property
    def partition(self) -> Ancestor | None:
        """The partition on the way, if there is one."""
        return next((step for step in self.steps if is_partition(step.record.commit)), None)

    @property
    def faults(self) -> list[Fault]:
        """What reading the commits has shown to be wrong."""
        return [fault for step in self.steps for fault in step.faults]


@dataclass
class Records:
    """Every commit of a store, sound or not."""

    objects: Objects
    inventory: Inventory
    unreadable: dict[str, str] = field(default_factory=dict)
    """{key: why} of the objects that are no commit at all."""
    outage: str | None = None
    """Why the store could not be read, for what somebody else remembers of it."""

    def find(self, ident: str) -> Record:
        """The commit that `ident` means, as `Inventory.find` takes it. Raises `RequestError`.

        Where there are records that cannot be read it may have been one of them: then `StoreError` names these.
        """
        try:
            return self.inventory.find(ident)[0]
        except RequestError as error:
            if not self.unreadable:
                raise
            broken = "\n".join(f"  {self.inventory.root}/{key}: {why}" for key, why in self.unreadable.items())
            raise StoreError(f"{error}\nthese commits cannot be read:\n{broken}") from error

    def ancestry(self, record: Record) -> Ancestry:
        """The walk from `record` to what lies outside the store."""
        steps = (self._ancestor(item) for item in self.inventory.ancestors_of(record))
        return Ancestry(self.inventory.root, tuple(steps))

    def _ancestor(self, record: Record) -> Ancestor:
        folders = self.inventory.inputs_of(record)
        sources = tuple(
            Source(
                name=name,
                digest=item.digest,
                uri=item.uri,
                record=self.inventory.by_artifact.get(folders.get(name, "")),
                inside=name in folders,
                is_file=name in folders and bool(item.files),
            )
            for name, item in record.commit.inputs.items()
        )
        return Ancestor(record, sources, tuple(self._faults(record, sources)))

    def _faults(self, record: Record, sources: tuple[Source, ...]) -> Iterator[Fault]:
        yield from record_faults(self.inventory.root, record)
        yield from self._source_faults(record, sources)

    def _source_faults(self, record: Record, sources: tuple[Source, ...]) -> Iterator[Fault]:
        """Inputs that no commit made, or that are not what the commit says it made."""
        root = self.inventory.root
        for source in sources:
            if source.record is None and source.inside and source.uri is not None:
                key = source.uri.removeprefix(f"{root}/")
                yield Fault(root, artifact_folder(key), f"a commit that made {source.digest}", self._lost(key))
            elif source.record is not None and not source.is_file:
                made = _digest_of(source.record.commit, source.part)
                if made != source.digest:
                    yield input_fault(root, record, source, source.record, made)

    def _lost(self, key: str) -> str:
        step = key.split("/")[2]
        broken = [f"{name} cannot be read ({why})" for name, why in self.unreadable.items() if f"/{step}/" in name]
        return f"{MISSING}; {'; '.join(broken)}" if broken else MISSING


def read_all_records(objects: Objects) -> Records:
    """Look at all commits, retired ones too. Raises `StoreError`, also when there is no store."""
    if isinstance(objects, FolderObjects) and not objects.folder.is_dir():
        raise StoreError(f"there is no store at {objects.root}; name it with --store or FORGETTING_STORE")
    unreadable: dict[str, str] = {}

    def as_it_stands(data: bytes, root: str, key: str) -> Commit | None:
        try:
            return decode(data, root, key, form=UncheckedCommit)
        except StoreError as error:
            unreadable[key] = " ".join(str(error.__cause__ or error).split())[:200]
            return None

    commits = read_records(objects, COMMITS, decoder=as_it_stands)
    history = read_records(objects, HISTORY, decoder=as_it_stands)
    inventory = Inventory(objects.root, commits, history, runs=(), heads=(), pins={})
    return Records(objects, inventory, unreadable)


def rho_of(commit: Commit) -> str | None:
    """ρ, for a partition that has one."""
    return partition_field(commit, "rho")


def is_partition(commit: Commit) -> bool:
    """Whether it chose the positive tokens."""
    return any(partition_field(commit, name) is not None for name in ("rho", "threshold"))


def partition_field(commit: Commit, name: str) -> str | None:
    """A field of a partition's config; None in any other step, and where it is null."""
    config = commit.payload.get("config")
    section = config.get("partition") if isinstance(config, dict) else None
    value = section.get(name) if isinstance(section, dict) else None
    return None if value is None else str(value)


def record_faults(root: str, record: Record) -> Iterator[Fault]:
    """Where a record contradicts its own name or its payload."""
    commit = record.commit
    _, _, step, name, *_ = record.key.split("/")
    named = name.removesuffix(".json")
    computed = _fingerprint(commit.payload)
    if computed != named:
        yield Fault(root, record.key, f"a payload with the fingerprint {named}", computed)
    if commit.fingerprint != named:
        yield Fault(root, record.key, f"the fingerprint {named}", commit.fingerprint)
    if not commit.step == step == commit.payload.get("step"):
        yield Fault(root, record.key, f"the step {step}", f"{commit.step}, {commit.payload.get('step')}")
    given = {name: item.digest for name, item in commit.inputs.items()}
    identified = commit.payload.get("inputs")
    if given != identified:
        yield Fault(root, record.key, f"the inputs of the payload, {identified}", str(given))


def input_fault(root: str, record: Record, source: Source, producer: Record, made: str) -> Fault:
    """An input of `record` is not what its producer made."""
    where = f"input {source.name}: {producer.label} made {made}"
    return Fault(root, record.key, f"the digest that its producer committed ({where})", source.digest)


def _fingerprint(payload: dict[str, Any]) -> str:
    try:
        return fingerprint(payload)
    except (TypeError, ValueError) as error:
        return f"none ({error})"


def _digest_of(commit: Commit, part: str) -> str:
    if not part:
        return commit.digest
    return next((output.digest for output in commit.outputs.values() if output.path == part), MISSING)
