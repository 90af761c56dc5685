"""Garbage collection: what nothing needs any more, and taking it away without harming a run that goes on.

Needed is what pins, heads, kept runs and live leases name, and everything that went into it (the inputs of commits,
walked back). The rest goes in two looks at the store that lie at least the grace period apart:

1. A commit that is not needed is *retired*: copied to `v1/history/`, then deleted. Its data stays. From here on
   nobody finds it; who found it before goes on reading it.
2. A later collection takes the data of what was retired longer than the grace period ago, the history record last.

Why a run that goes on is not harmed, whatever the moment:

* It reads artifacts that it found through a commit or made itself. It names each in `v1/runs/` as soon as it has
  it, long before a grace period is over, and a run that is not finished keeps all it names, retired or not.
* A run may find a commit just before it is retired. If it names it before the runs are read once more, right after
  the retirement, the commit is put back; if later, then since the retirement, and that keeps the data.
* A run that comes later misses, computes, and commits a new artifact under a name of its own. The commit is read
  again right before it is deleted; should another one take its place in that instant, that one's data is young,
  named by its run and stays, and the step is computed once more at worst.
* An upload has no commit yet, but its newest file is younger than the grace period, or its step holds a live lease.
* Right before data is deleted, commits, runs and pins that were written since the look are read, and spare it.
* A collection that is killed leaves data without a manifest, or a history record: the next one continues.

All this takes the grace period to be longer than the pause between two lines of a run, and than the difference
between the clocks of this machine and of the store.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from infra.commits import DATA, decode
from infra.inventory import HISTORY, Inventory, Record, Run, StepKey, artifact_folder
from infra.lease import LEASES
from infra.manifest import MANIFEST
from infra.objects import NotFoundError, Objects
from infra.training_checkpoints import TRAINING

TEMPORARY = ".tmp"
Kind = Literal["commit", "retired", "upload", "write"]


@dataclass(frozen=True)
class Garbage:
    """Something that nothing needs.

    `commit`: no run uses it, it will be retired. `retired`: its data and its history record will go. `upload`: data
    without a commit, of a run that was killed. `write`: a folder store's unfinished write, or the pointer to the
    checkpoint of a training that nobody has taken up again.
    """

    kind: Kind
    key: str
    """The commit, the artifact's folder, or the object, relative to the store's root."""
    label: str
    """Its step; empty for an unfinished write."""
    bytes: int
    modified: datetime
    record: Record | None = None


@dataclass(frozen=True)
class Census:
    """What a collection would do, and what it leaves alone."""

    garbage: tuple[Garbage, ...]
    needed: int
    """Artifacts that something needs."""
    young: int
    """Artifacts that nothing needs, but younger than the grace period."""


@dataclass
class _Data:
    """The files of one artifact folder."""

    bytes: int = 0
    modified: datetime | None = None


def take_census(
    objects: Objects, inventory: Inventory, *, now: datetime, grace: timedelta, keep_runs: int | None = None
) -> Census:
    """What could be collected at `now`. With `keep_runs` only so many newest runs of each recipe count.

    Reads only. Raises `StoreError`.
    """
    old = now - grace
    leased = {key for key, modified in _leases(objects) if modified > old}
    needed = _needed(inventory, leased, _counted(inventory, old, bool(leased), keep_runs))
    data = _data(objects)
    retired = {record.artifact: record for record in inventory.history}
    in_force = {record.artifact: record for record in inventory.commits}
    busy_steps = {step for step, _ in leased}

    found = []
    for record in inventory.commits:
        if record.artifact not in needed:
            size = data[record.artifact].bytes if record.artifact in data else 0
            found.append(Garbage("commit", record.key, record.label, size, record.modified, record))
    for folder, record in retired.items():
        if folder not in needed and folder not in in_force:
            size = data[folder].bytes if folder in data else 0
            found.append(Garbage("retired", folder, record.label, size, record.modified, record))
    for folder, files in data.items():
        step = folder.split("/")[2]
        if folder not in needed and folder not in in_force and folder not in retired and step not in busy_steps:
            assert files.modified is not None
            found.append(Garbage("upload", folder, step, files.bytes, files.modified))
    for stored in objects.find(TEMPORARY):
        found.append(Garbage("write", stored.key, "", stored.bytes, stored.modified))
    for stored in objects.find(TRAINING):
        step = stored.key.split("/")[2]
        if step not in busy_steps:
            found.append(Garbage("write", stored.key, step, stored.bytes, stored.modified))
    garbage = tuple(item for item in found if item.modified <= old)
    return Census(garbage, needed=len(needed), young=len(found) - len(garbage))


def collect(objects: Objects, inventory: Inventory, garbage: Iterable[Garbage]) -> Iterator[tuple[Garbage, bool]]:
    """Take away what a census on `inventory` found; each item, and whether it went.

    An item stays when something has come to need it since. Raises `StoreError`.
    """
    for item in garbage:
        if item.kind == "commit":
            assert item.record is not None
            yield item, _retire_unless_used(objects, inventory, item.record)
        elif item.kind == "write":
            objects.delete(item.key)
            yield item, True
        elif item.key in inventory.used_since(objects):
            yield item, False
        else:
            objects.delete(f"{item.key}/{MANIFEST}")  # half a folder must not pass for an artifact
            objects.delete_folder(item.key)
            if item.record is not None:
                objects.delete(item.record.key)
            yield item, True


def _retire_unless_used(objects: Objects, inventory: Inventory, record: Record) -> bool:
    if not retire(objects, record):
        return False
    if record.artifact not in inventory.used_since(objects):
        return True
    retired = _history_key(record)
    objects.create(record.key, objects.read(retired))  # or another one has taken the place, which is as good
    objects.delete(retired)
    return False


def retire(objects: Objects, record: Record) -> bool:
    """Move a commit to the history; False when it is gone or another one has taken its place.

    Raises `StoreError`.
    """
    try:
        data = objects.read(record.key)
    except NotFoundError:
        return False
    if decode(data, objects.root, record.key).artifact != record.artifact:
        return False
    # not `create`: the grace period starts now, also when a killed collection left the record here before
    objects.overwrite(_history_key(record), data)
    objects.delete(record.key)
    return True


def _history_key(record: Record) -> str:
    attempt = record.artifact.rsplit("/", 1)[1]
    return f"{HISTORY}/{record.commit.step}/{record.commit.fingerprint}/{attempt}.json"


def _counted(
    inventory: Inventory, old: datetime, leases: bool, keep_runs: int | None
) -> tuple[list[Run], list[Run]]:
    """(runs that go on, runs that count): a run without an end that was heard of lately, or may hold a lease."""
    live = [run for run in inventory.runs if not run.finished and (run.modified > old or leases)]
    by_recipe: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(inventory.runs, key=lambda run: run.modified, reverse=True):
        by_recipe[run.recipe].append(run)
    return live, [*live, *(run for runs in by_recipe.values() for run in runs[:keep_runs])]


def _needed(inventory: Inventory, leased: set[StepKey], counted: tuple[list[Run], list[Run]]) -> set[str]:
    """Folders of the artifacts that something needs."""
    live, runs = counted
    step_keys = {*leased, *(key for run in (*runs, *inventory.heads) for key in run.steps.values())}
    step_keys |= {(pin.step, pin.fingerprint) for pin in inventory.pins.values()}
    waiting = [inventory.by_step[key].artifact for key in step_keys if key in inventory.by_step]
    waiting += [pin.artifact for pin in inventory.pins.values()]
    waiting += [folder for run in live for folder in run.artifacts]
    for record in inventory.history:
        if any(record.artifact in run.artifacts and run.modified >= record.modified for run in runs):
            waiting.append(record.artifact)
    needed: set[str] = set()
    while waiting:
        folder = waiting.pop()
        if folder not in needed:
            needed.add(folder)
            if folder in inventory.by_artifact:
                waiting.extend(inventory.inputs_of(inventory.by_artifact[folder]).values())
    return needed


def _leases(objects: Objects) -> Iterator[tuple[StepKey, datetime]]:
    for stored in objects.find(LEASES):
        _, _, step, *rest = stored.key.split("/")
        yield (step, "/".join(rest).removesuffix(".json")), stored.modified


def _data(objects: Objects) -> dict[str, _Data]:
    found: dict[str, _Data] = defaultdict(_Data)
    for stored in objects.find(DATA.rstrip("/")):
        files = found[artifact_folder(stored.key)]
        files.bytes += stored.bytes
        files.modified = max(files.modified or stored.modified, stored.modified)
    return found
