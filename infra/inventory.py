"""What is in a store: every commit, what uses it, and the one that a person means by an id.

Reads only. One `Inventory` is one look at the store; what others write meanwhile is not in it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from infra.commits import DATA, Commit, decode
from infra.errors import RequestError
from infra.objects import NotFoundError, Objects, Stored, StoreError, in_order
from infra.pins import Pin, read_pins
from infra.sealed import unseal

COMMITS = "v1/commits"
HISTORY = "v1/history"
RUNS = "v1/runs"
HEADS = "v1/heads"
WORKERS = 8
SHORTEST_PREFIX = 8
_HEX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}")
StepKey = tuple[str, str]
"""(step, fingerprint): what a commit is filed under."""
Seen = frozenset[tuple[str, str]]
"""(key, ETag) of the objects that were looked at before."""
Decoder = Callable[[bytes, str, str], Commit | None]
"""(data, root, key) -> the record, or None to pass over it."""


@dataclass(frozen=True)
class Record:
    """A commit record, in force or retired to the history."""

    key: str
    modified: datetime
    etag: str
    commit: Commit

    @property
    def step_key(self) -> StepKey:
        """What the commit is, or was, filed under."""
        return self.commit.step, self.commit.fingerprint

    @property
    def artifact(self) -> str:
        """The artifact's folder, relative to the store's root."""
        return self.commit.artifact

    @property
    def label(self) -> str:
        """The step as the DAG calls it, such as `score[base]`."""
        return str(self.commit.provenance.get("label", self.commit.step))


@dataclass(frozen=True)
class Run:
    """A flow run's record, or a recipe's head."""

    key: str
    etag: str
    id: str
    recipe: str
    modified: datetime
    finished: bool
    """False while the run goes on, and for ever when it was killed."""
    steps: Mapping[str, StepKey]
    """By label."""
    artifacts: frozenset[str]
    """Folders of the artifacts it used, relative to the store's root."""


@dataclass(frozen=True)
class Inventory:
    """One look at a store."""

    root: str
    commits: tuple[Record, ...]
    history: tuple[Record, ...]
    runs: tuple[Run, ...]
    heads: tuple[Run, ...]
    pins: Mapping[str, Pin]

    @cached_property
    def by_step(self) -> Mapping[StepKey, Record]:
        """Commits in force by (step, fingerprint)."""
        return {record.step_key: record for record in self.commits}

    @cached_property
    def by_artifact(self) -> Mapping[str, Record]:
        """The record of each artifact folder; a commit in force before a retired one."""
        return {record.artifact: record for record in (*self.history, *self.commits)}

    def runs_of(self, record: Record) -> list[Run]:
        """The runs that used the commit, newest first."""
        used = [run for run in self.runs if record.step_key in run.steps.values()]
        return sorted(used, key=lambda run: run.modified, reverse=True)

    def pins_of(self, record: Record) -> list[str]:
        """Names under which the commit's artifact is pinned."""
        return sorted(name for name, pin in self.pins.items() if pin.artifact == record.artifact)

    def inputs_of(self, record: Record) -> dict[str, str]:
        """{input name: artifact folder} of those inputs that are artifacts of this store."""
        prefix = f"{self.root}/{DATA}"
        return {
            name: artifact_folder(item.uri.removeprefix(f"{self.root}/"))
            for name, item in record.commit.inputs.items()
            if item.uri is not None and item.uri.startswith(prefix)
        }

    def used_since(self, objects: Objects) -> set[str]:
        """Artifact folders that commits, runs or pins written after this look name. Raises `StoreError`."""
        seen = frozenset(
            [(record.key, record.etag) for record in self.commits] + [(run.key, run.etag) for run in self.runs]
        )
        commits = read_records(objects, COMMITS, seen)
        runs = read_runs(objects, RUNS, seen)
        return {
            *(record.artifact for record in commits),
            *(folder for record in commits for folder in self.inputs_of(record).values()),
            *(folder for run in runs for folder in run.artifacts),
            *(pin.artifact for _, pin in read_pins(objects)),
        }

    def ancestors_of(self, record: Record) -> list[Record]:
        """The commit and all that went into it, retired or not; what was made later comes first."""
        done: dict[str, Record] = {}
        seen = set()  # altered records may name each other in a circle

        def visit(item: Record) -> None:
            seen.add(item.artifact)
            for folder in self.inputs_of(item).values():
                if folder not in seen and folder in self.by_artifact:
                    visit(self.by_artifact[folder])
            done[item.artifact] = item

        visit(record)
        return list(reversed(done.values()))

    def select(self, *, step: str | None, recipe: str | None, run: str | None) -> list[Record]:
        """The commits of a step, a recipe, a run; newest first. Raises `RequestError` for a name nobody knows."""
        found = list(self.commits)
        if step is not None:
            _known("step", step, {name for record in self.commits for name in (record.commit.step, record.label)})
            found = [record for record in found if step in (record.commit.step, record.label)]
        if recipe is not None:
            _known("recipe", recipe, {item.recipe for item in (*self.runs, *self.heads)})
            found = _used_by(found, [item for item in (*self.runs, *self.heads) if item.recipe == recipe])
        if run is not None:
            _known("flow run", run, {item.id for item in self.runs})
            found = _used_by(found, [item for item in self.runs if item.id == run])
        return sorted(found, key=lambda record: (record.modified, record.label), reverse=True)

    def find(self, ident: str) -> tuple[Record, str]:
        """The commit that `ident` means, and the part of its artifact (empty: all of it).

        `ident` is the URI of an artifact or a part, a digest of either, a fingerprint, or at least 8 first digits
        of one of these. Raises `RequestError`.
        """
        key = ident.removeprefix(f"{self.root}/").rstrip("/")
        if key.startswith(DATA):
            return self._at(key)
        if not _HEX.fullmatch(ident):
            raise RequestError(
                f"{ident!r} is no artifact's id; expected a URI below {self.root}/{DATA}, a digest, a fingerprint,"
                f" or at least {SHORTEST_PREFIX} of their first hexadecimal digits"
            )
        found = {
            (record.artifact, part): (record, part)
            for record in self.commits
            for part, name in _names(record.commit)
            if name.startswith(ident)
        }
        if len(found) > 1:
            candidates = "\n".join(f"  {_candidate(record, part)}" for record, part in found.values())
            raise RequestError(f"{ident!r} could be {len(found)} artifacts; name one of\n{candidates}")
        if not found:
            retired = next(
                (old for old in self.history if ident in (old.commit.fingerprint, old.commit.digest)), None
            )
            hint = f"its commit was removed on {retired.modified:%Y-%m-%d}" if retired else "see `artifacts ls`"
            raise RequestError(f"no artifact in {self.root} has an id that begins with {ident!r}; {hint}")
        return next(iter(found.values()))

    def _at(self, key: str) -> tuple[Record, str]:
        folder = artifact_folder(key)
        record = next((record for record in self.commits if record.artifact == folder), None)
        if record is None:
            raise RequestError(f"no commit in {self.root} names {key}; see `artifacts ls`")
        return record, key.removeprefix(folder).lstrip("/")


def artifact_folder(key: str) -> str:
    """`v1/data/{step}/{uuid}` of a key in it."""
    return "/".join(key.split("/")[:4])


def read_inventory(objects: Objects) -> Inventory:
    """Look at everything but the artifacts themselves. Raises `StoreError`, also for a damaged record.

    What uses artifacts is read after the commits: a run that finished meanwhile is seen to use what is seen.
    """
    commits = read_records(objects, COMMITS)
    history = read_records(objects, HISTORY)
    return Inventory(
        root=objects.root,
        commits=commits,
        history=history,
        runs=read_runs(objects, RUNS),
        heads=read_runs(objects, HEADS),
        pins=dict(read_pins(objects)),
    )


def read_newest(objects: Objects, step: str | None, limit: int) -> tuple[Inventory, int]:
    """The `limit` commits, of one kind of step if asked, that were written last, and how many there are.

    With what uses them: a run is written after the commits that it names, so runs that are older than all of these
    are not read. Raises `StoreError`.
    """
    newest, count = objects.newest(f"{COMMITS}/{step}" if step else COMMITS, limit)
    since = min((stored.modified for stored in newest), default=None)
    users = (stored for stored in objects.find(RUNS) if since is not None and stored.modified >= since)
    inventory = Inventory(
        root=objects.root,
        commits=_records(objects, newest, decode),
        history=(),
        runs=_runs(objects, users),
        heads=read_runs(objects, HEADS),
        pins=dict(read_pins(objects)),
    )
    return inventory, count


def read_records(
    objects: Objects, prefix: str, seen: Seen = frozenset(), *, decoder: Decoder = decode
) -> tuple[Record, ...]:
    """The commit records below a folder that were not `seen`. Raises `StoreError`."""
    listed = (stored for stored in objects.find(prefix) if (stored.key, stored.etag) not in seen)
    return _records(objects, listed, decoder)


def _records(objects: Objects, listed: Iterable[Stored], decoder: Decoder) -> tuple[Record, ...]:
    def read(stored: Stored) -> Record | None:
        try:
            commit = decoder(objects.read(stored.key), objects.root, stored.key)
        except NotFoundError:  # removed since it was listed
            return None
        return Record(stored.key, stored.modified, stored.etag, commit) if commit else None

    return tuple(record for record in in_order(read, listed, WORKERS) if record is not None)


def read_runs(objects: Objects, prefix: str, seen: Seen = frozenset()) -> tuple[Run, ...]:
    """The records of flow runs (`RUNS`) or heads (`HEADS`) that were not `seen`. Raises `StoreError`."""
    listed = (stored for stored in objects.find(prefix) if (stored.key, stored.etag) not in seen)
    return _runs(objects, listed)


def _runs(objects: Objects, listed: Iterable[Stored]) -> tuple[Run, ...]:
    def read(stored: Stored) -> Run | None:
        try:
            data = unseal(objects.read(stored.key))
            return _run(stored, data)
        except NotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{objects.root}/{stored.key} is damaged: {error!r}; delete it") from error

    return tuple(run for run in in_order(read, listed, WORKERS) if run is not None)


def _run(stored: Stored, data: dict[str, Any]) -> Run:
    used = data["steps"]
    return Run(
        key=stored.key,
        etag=stored.etag,
        id=data["flow_run_id"],
        recipe=data["recipe"],
        modified=stored.modified,
        finished=data.get("finished", True),
        steps={label: (item["step"], item["fingerprint"]) for label, item in used.items()},
        artifacts=frozenset(item["artifact"] for item in used.values() if "artifact" in item),
    )


def _used_by(records: list[Record], runs: list[Run]) -> list[Record]:
    used = {step_key for run in runs for step_key in run.steps.values()}
    return [record for record in records if record.step_key in used]


def _known(kind: str, name: str, names: set[str]) -> None:
    if name not in names:
        raise RequestError(f"the store has no {kind} {name!r}; it has: {', '.join(sorted(names)) or 'none'}")


def _names(commit: Commit) -> list[tuple[str, str]]:
    """(part, hexadecimal name) of everything that can be meant."""
    parts = [(output.path, output.digest) for output in commit.outputs.values()]
    return [("", commit.fingerprint), ("", commit.digest), *parts]


def _candidate(record: Record, part: str) -> str:
    where = f"{record.artifact}/{part}" if part else record.artifact
    return f"{where}  ({record.label}, fingerprint {record.commit.fingerprint[:12]})"
