"""Cleaning up, verifying and fetching, on a folder and on a real S3 server alike."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.collector import Census, collect, retire, take_census
from infra.commits import Commit
from infra.errors import RequestError
from infra.fetching import fetch
from infra.fingerprint import fingerprint, step_payload
from infra.inventory import read_inventory
from infra.objects import NotFoundError, Objects, StoreError
from infra.pins import remove_pin, write_pin
from infra.store import Store
from infra.verification import Fault, read_manifest, verify_artifact
from tests.stores import make_step, record_run, write_files

DAY = timedelta(hours=24)
FILES = {
    "train/0.parquet": b"train" * 1000,
    "metrics.json": b"{}",
    "aux/times.json": b"12:00",
    "README.md": b"read",
}


@pytest.fixture
def store(objects: Objects) -> Store:
    return Store(objects)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "out", FILES)


def tomorrow(days: int = 1) -> datetime:
    """A moment at which all that exists now is older than a day."""
    return datetime.now(UTC) + days * DAY + timedelta(minutes=1)


def census(objects: Objects, now: datetime, keep_runs: int | None = None) -> Census:
    return take_census(objects, read_inventory(objects), now=now, grace=DAY, keep_runs=keep_runs)


def clean(objects: Objects, now: datetime, keep_runs: int | None = None) -> list[tuple[str, str]]:
    """Collect; (kind, label) of what went."""
    inventory = read_inventory(objects)
    found = take_census(objects, inventory, now=now, grace=DAY, keep_runs=keep_runs)
    return [(item.kind, item.label) for item, gone in collect(objects, inventory, found.garbage) if gone]


def is_whole(objects: Objects, commit: Commit) -> bool:
    manifest = read_manifest(objects, commit)
    return manifest is not None and verify_artifact(objects, commit, manifest, lambda count: None) == []


def test_what_is_deleted_is_gone_and_may_be_gone_already(objects: Objects) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("v1/a/1", "v1/a/b [c]/2", "v1/ab"):
        objects.overwrite(key, b"bytes")
    assert all(before < stored.modified < tomorrow(0) for stored in objects.find("v1"))
    objects.delete("v1/ab")
    objects.delete("v1/ab")
    assert [stored.key for stored in objects.find("v1")] == ["v1/a/1", "v1/a/b [c]/2"]
    objects.delete_folder("v1/a")
    objects.delete_folder("v1/a")
    assert list(objects.find("v1")) == []


def test_a_stream_gives_the_first_bytes(objects: Objects) -> None:
    objects.overwrite("v1/data/x", b"0123456789")
    assert b"".join(objects.stream("v1/data/x", 7)) == b"0123456"
    with pytest.raises(NotFoundError):
        list(objects.stream("v1/data/none", 1))


KILLED = """
import os, signal, sys
from pathlib import Path
from infra.store import open_store

def after_the_first_file(done: int, total: int) -> None:
    if done > 100:
        os.kill(os.getpid(), signal.SIGKILL)

open_store(sys.argv[1]).publish("forget", Path(sys.argv[2]), after_the_first_file)
"""


def test_an_upload_that_was_killed_is_invisible_listed_and_removed(
    objects: Objects, store: Store, folder: Path, tmp_path: Path
) -> None:
    killed = write_files(tmp_path / "killed", {"a": b"a" * 100, "b": b"b" * 100, "c": b"c" * 100})
    done = subprocess.run([sys.executable, "-c", KILLED, objects.root, str(killed)])
    assert done.returncode == -signal.SIGKILL
    left = list(objects.find("v1/data/forget"))
    assert left
    assert not any(stored.key.endswith("manifest.json") for stored in left)
    used = make_step(store, folder, "forget")
    record_run(store, used)

    assert [record.commit for record in read_inventory(objects).commits] == [used]
    assert census(objects, datetime.now(UTC)).garbage == (), "it may still be going on"
    (garbage,) = census(objects, tomorrow()).garbage
    assert (garbage.kind, garbage.label, garbage.bytes) == ("upload", "forget", sum(item.bytes for item in left))
    assert len(list(objects.find("v1/data"))) == len(left) + len(FILES) + 1, "a census takes nothing"

    assert clean(objects, tomorrow()) == [("upload", "forget")]
    assert not list(objects.find(garbage.key))
    assert is_whole(objects, used)


def test_data_goes_a_grace_period_after_its_commit(objects: Objects, store: Store, folder: Path) -> None:
    unused = make_step(store, folder, "forget")
    assert clean(objects, datetime.now(UTC)) == []
    assert clean(objects, tomorrow()) == [("commit", "forget")]
    assert store.lookup("forget", unused.fingerprint) is None
    assert is_whole(objects, unused)
    assert clean(objects, datetime.now(UTC)) == []
    assert clean(objects, tomorrow()) == [("retired", "forget")]
    assert list(objects.find("v1")) == []


def test_runs_heads_and_pins_keep_what_they_name_and_all_it_was_made_from(
    objects: Objects, store: Store, folder: Path
) -> None:
    def chain() -> tuple[Commit, Commit]:
        split = make_step(store, folder, "split")
        return split, make_step(store, folder, "forget", {"data": split})

    by_run, by_head, by_pin, unused = chain(), chain(), chain(), chain()
    record_run(store, by_run[1])
    head = {"step": "forget", "fingerprint": by_head[1].fingerprint}
    store.write_head("recipe", {"flow_run_id": "x", "recipe": "recipe", "steps": {"forget": head}})
    write_pin(objects, "paper", by_pin[1])
    assert sorted(clean(objects, tomorrow())) == [("commit", "forget"), ("commit", "split")]
    assert {record.commit.fingerprint for record in read_inventory(objects).history} == {
        commit.fingerprint for commit in unused
    }
    clean(objects, tomorrow())
    assert all(is_whole(objects, commit) for commit in (*by_run, *by_head, *by_pin))
    assert not any(is_whole(objects, commit) for commit in unused)

    remove_pin(objects, "paper")
    assert len(clean(objects, tomorrow())) == 2
    with pytest.raises(RequestError, match=r"pins in .*: none"):
        remove_pin(objects, "paper")


def test_the_inputs_of_what_is_needed_stay_when_their_commit_was_removed(
    objects: Objects, store: Store, folder: Path
) -> None:
    raw = make_step(store, folder, "prepare")
    split = make_step(store, folder, "split", {"raw": raw})
    record_run(store, make_step(store, folder, "forget", {"data": split}))
    for record in read_inventory(objects).commits:
        if record.commit == split:
            assert retire(objects, record)
            assert not retire(objects, record)
    assert clean(objects, tomorrow()) == []
    assert is_whole(objects, split)
    assert is_whole(objects, raw)


def test_only_the_newest_runs_count_when_asked(objects: Objects, store: Store, folder: Path) -> None:
    old, new, other = (make_step(store, folder, step) for step in ("split", "forget", "score"))
    record_run(store, old)
    record_run(store, other, recipe="other")
    time.sleep(1.1)  # S3 tells times by the second
    record_run(store, new)
    assert census(objects, tomorrow(), keep_runs=2).garbage == ()
    assert [item.label for item in census(objects, tomorrow(), keep_runs=1).garbage] == ["split"]


def test_a_run_that_goes_on_counts_in_any_case(objects: Objects, store: Store, folder: Path) -> None:
    used, removed = make_step(store, folder, "split"), make_step(store, folder, "forget")
    time.sleep(2.1)
    record_run(store, used, removed, finished=False)
    for record in read_inventory(objects).commits:
        if record.commit == removed:
            retire(objects, record)
    (run,) = objects.find("v1/runs")
    assert census(objects, run.modified + DAY - timedelta(seconds=1), keep_runs=0).garbage == ()
    assert len(census(objects, tomorrow(), keep_runs=0).garbage) == 2, "it was killed long ago"


def test_a_live_lease_keeps_its_commit_and_the_uploads_of_its_step(
    objects: Objects, store: Store, folder: Path
) -> None:
    leased = make_step(store, folder, "forget")
    store.publish("forget", folder)
    store.publish("score", folder)
    time.sleep(2.1)
    objects.overwrite(f"v1/leases/forget/{leased.fingerprint}.json", b"{}")
    (lease,) = objects.find("v1/leases")
    now = lease.modified + DAY - timedelta(seconds=1)
    assert [(item.kind, item.label) for item in census(objects, now).garbage] == [("upload", "score")]
    assert len(census(objects, tomorrow()).garbage) == 3


class Interrupted:
    """`Objects` that call `interrupt` right before their operation number `at`."""

    def __init__(self, objects: Objects, at: int, interrupt: Callable[[], None]) -> None:
        self._objects, self._left, self._interrupt = objects, at, interrupt

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._objects, name)
        if callable(value):
            self._left -= 1
            if self._left == -1:
                self._interrupt()
        return value


def use(store: Store, folder: Path, config: dict[str, Any]) -> Commit:
    """What a run does: find the step or make it, and name it."""
    commit = store.lookup("forget", fingerprint(step_payload("forget", 1, config, {})))
    commit = commit or make_step(store, folder, "forget", config=config)
    record_run(store, commit, finished=False)
    return commit


def test_a_run_at_any_moment_of_a_collection_keeps_what_it_found_or_made(
    objects: Objects, store: Store, folder: Path
) -> None:
    moment, done = 0, False
    while not done:
        objects.delete_folder("v1")
        configs = [{"old": index} for index in range(2)]
        removed = make_step(store, folder, "split")
        for record in read_inventory(objects).commits:
            if record.commit == removed:
                retire(objects, record)
        for config in configs:
            make_step(store, folder, "forget", config=config)
        used: list[Commit] = []

        def run(used: list[Commit] = used, configs: list[dict[str, Any]] = configs) -> None:
            used.extend(use(store, folder, config) for config in configs)

        now = tomorrow()
        clean(Interrupted(objects, moment, run), now)  # type: ignore[arg-type]
        done = not used
        for _ in range(2):
            assert all(is_whole(objects, commit) for commit in used), f"operation {moment}"
            clean(objects, tomorrow(3))
        moment += 3 if objects.root.startswith("s3") else 1
    assert moment > 10


def test_a_run_that_found_a_commit_and_names_it_after_it_was_retired_keeps_it(
    objects: Objects, store: Store, folder: Path
) -> None:
    found = make_step(store, folder, "forget")
    assert clean(objects, tomorrow()) == [("commit", "forget")]
    record_run(store, found)
    assert clean(objects, tomorrow(2)) == []
    assert is_whole(objects, found)


def test_data_that_was_named_since_the_look_is_spared(objects: Objects, store: Store, folder: Path) -> None:
    found = make_step(store, folder, "forget")
    clean(objects, tomorrow())
    inventory = read_inventory(objects)
    garbage = take_census(objects, inventory, now=tomorrow(), grace=DAY).garbage
    record_run(store, found, finished=False)
    assert [gone for _, gone in collect(objects, inventory, garbage)] == [False]
    assert is_whole(objects, found)


def test_runs_and_collections_that_race_harm_no_run(objects: Objects, store: Store, folder: Path) -> None:
    configs = [{"index": index} for index in range(8)]
    for config in configs:
        make_step(store, folder, "forget", config=config)
    time.sleep(1.1)  # S3 tells times by the second
    now = datetime.now(UTC).replace(microsecond=0) + DAY
    collecting = True

    def collections() -> int:
        gone = 0
        while collecting:
            gone += len(clean(objects, now))
        return gone

    with ThreadPoolExecutor(4) as pool:
        collector = pool.submit(collections)
        runs = list(pool.map(lambda config: use(store, folder, config), [*configs, *reversed(configs)]))
        collecting = False
        collector.result()
    assert len(runs) == 16
    assert all(is_whole(objects, commit) for commit in runs)
    clean(objects, tomorrow(2))
    assert all(is_whole(objects, commit) for commit in runs)


def damaged(objects: Objects, commit: Commit) -> Iterator[tuple[Fault, Callable[[], None]]]:
    """Each kind of damage: what verification should say, and how to do it."""
    train, metrics = f"{commit.artifact}/train/0.parquet", f"{commit.artifact}/metrics.json"
    changed = b"TRAIN" * 1000
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    found = hashlib.sha256(changed).hexdigest()
    yield (
        Fault(commit.uri, "train/0.parquet", expected["train/0.parquet"], found),
        lambda: objects.overwrite(train, changed),
    )
    yield (
        Fault(commit.uri, "train/0.parquet", expected["train/0.parquet"], "1 bytes instead of 5000"),
        lambda: objects.overwrite(train, b"t"),
    )
    yield Fault(commit.uri, "metrics.json", expected["metrics.json"], "nothing"), lambda: objects.delete(metrics)
    yield (
        Fault(commit.uri, "train/1.parquet", "nothing", "a file"),
        lambda: objects.overwrite(f"{commit.artifact}/train/1.parquet", b""),
    )
    yield (
        Fault(commit.uri, "manifest.json", "the artifact's manifest", "nothing"),
        lambda: objects.delete(f"{commit.artifact}/manifest.json"),
    )


def test_verification_names_every_kind_of_damage(objects: Objects, store: Store, folder: Path) -> None:
    for index in range(5):
        commit = make_step(store, folder, "forget")
        assert is_whole(objects, commit)
        fault, damage = list(damaged(objects, commit))[index]
        damage()
        assert verify_artifact(objects, commit, read_manifest(objects, commit), lambda count: None) == [fault]


def test_fetching_copies_all_files_and_continues(
    objects: Objects, store: Store, folder: Path, tmp_path: Path
) -> None:
    commit = make_step(store, folder, "forget")
    manifest = read_manifest(objects, commit)
    assert manifest
    into = tmp_path / "into"
    heard: list[tuple[int, int]] = []
    assert fetch(objects, commit, manifest, "", into, lambda *so_far: heard.append(so_far)) == (4, 0)
    size = sum(map(len, FILES.values()))
    assert heard[-1] == (size, size)
    assert {name: (into / name).read_bytes() for name in FILES} == FILES

    (into / "train/0.parquet").write_bytes(b"train")
    (into / "metrics.json").unlink()
    assert fetch(objects, commit, manifest, "", into) == (2, 2)
    assert {name: (into / name).read_bytes() for name in FILES} == FILES
    assert fetch(objects, commit, manifest, "train", tmp_path / "part") == (1, 0)
    assert (tmp_path / "part/0.parquet").read_bytes() == FILES["train/0.parquet"]


def test_a_fetch_that_is_interrupted_keeps_whole_files_and_continues(
    objects: Objects, store: Store, folder: Path, tmp_path: Path
) -> None:
    commit = make_step(store, folder, "forget")
    manifest = read_manifest(objects, commit)
    assert manifest

    def stop(done: int, total: int) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(objects, commit, manifest, "", tmp_path / "into", stop)
    assert not (tmp_path / "into/train/0.parquet").exists()
    copied, kept = fetch(objects, commit, manifest, "", tmp_path / "into")
    assert copied and kept and copied + kept == 4
    assert fetch(objects, commit, manifest, "", tmp_path / "into") == (0, 4)


def test_a_damaged_file_is_not_fetched(objects: Objects, store: Store, folder: Path, tmp_path: Path) -> None:
    commit = make_step(store, folder, "forget")
    manifest = read_manifest(objects, commit)
    assert manifest
    objects.overwrite(f"{commit.artifact}/train/0.parquet", b"TRAIN" * 1000)
    with pytest.raises(StoreError, match=r"train/0\.parquet is damaged: expected the SHA-256 \w+, found \w+"):
        fetch(objects, commit, manifest, "", tmp_path / "into")
    assert not (tmp_path / "into/train").exists()
