"""What a store promises of commits and of whoever races for them, on a folder and on a real S3 server alike."""

import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from infra.manifest import Artifact
from infra.objects import Objects
from infra.staging import ArtifactMissingError
from infra.store import Store, open_store
from infra.urls import open_objects
from tests.contract.published import CONTENT, STEP, make_commit
from tests.stores import write_files


def test_the_newest_runs_come_first(store: Store) -> None:
    assert list(store.newest_runs(2)) == []
    for run in ("b", "c", "a"):
        store.record_run(run, {"flow_run_id": run})
        time.sleep(1.1)  # a bucket tells whole seconds
    assert [run["flow_run_id"] for run in store.newest_runs(2)] == ["a", "c"]


def test_of_a_folder_the_objects_that_were_written_last_are_told_and_how_many_there_are(objects: Objects) -> None:
    assert objects.newest("v1/a", 2) == ([], 0)
    for key in ("v1/a/2", "v1/a/b/3", "v1/a/1"):
        objects.overwrite(key, b"bytes")
        time.sleep(1.1)  # a bucket tells whole seconds
    objects.overwrite("v1/ab", b"not in it")
    of = {stored.key: stored for stored in objects.find("v1/a")}
    assert objects.newest("v1/a", 2) == ([of["v1/a/1"], of["v1/a/b/3"]], 3)
    objects.overwrite("v1/a/2", b"again")
    (last,), count = objects.newest("v1/a", 1)
    assert (last.key, last.bytes, count) == ("v1/a/2", 5, 3)
    assert objects.newest("v1/ab", 5)[1] == 1


def test_a_conditional_create_refuses_what_is_there_and_knows_its_own(url: str) -> None:
    objects = open_objects(url)
    assert objects.create("v1/leases/a.json", b"mine")
    assert objects.create("v1/leases/a.json", b"mine"), "a lost response must not look like a lost race"
    assert not objects.create("v1/leases/a.json", b"theirs")
    assert objects.read("v1/leases/a.json") == b"mine"


def test_a_commit_is_found_again_with_all_it_says(store: Store, artifact: Artifact) -> None:
    record = make_commit(artifact, store.root, summary={"loss": 0.1}, provenance={"host": "a"})
    assert store.lookup(STEP, record.fingerprint) is None
    assert list(store.commits(STEP)) == []
    made = store.commit(record)
    assert made == store.lookup(STEP, record.fingerprint)
    assert made.payload == record.payload
    assert made.uri == artifact.uri
    assert made.output_uri("train") == artifact.part("train").uri
    assert made.inputs["data"].uri == f"{store.root}/v1/data/split/x/train"
    other = store.commit(make_commit(artifact, store.root, seed=43))
    assert {found.fingerprint for found in store.commits(STEP)} == {made.fingerprint, other.fingerprint}


def test_a_commit_record_does_not_say_where_the_store_is(store: Store, artifact: Artifact) -> None:
    record = store.commit(make_commit(artifact, store.root))
    stored = next(open_objects(store.root).find(f"v1/commits/{STEP}"))
    assert store.root.encode() not in open_objects(store.root).read(stored.key)
    assert record.uri.startswith(store.root)


def test_a_commit_of_what_is_not_published_is_refused(store: Store, artifact: Artifact) -> None:
    record = make_commit(artifact, store.root).model_copy(update={"artifact": f"v1/data/{STEP}/{uuid.uuid4()}"})
    with pytest.raises(ArtifactMissingError):
        store.commit(record)


def test_threads_that_race_all_get_the_winners_record(url: str, tmp_path: Path) -> None:
    stores = [open_store(url) for _ in range(8)]
    folder = write_files(tmp_path / "out", CONTENT)
    records = [make_commit(store.publish(STEP, folder), store.root) for store in stores]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda pair: pair[0].commit(pair[1]), zip(stores, records, strict=True)))
    assert [result.adopted for result in results].count(False) == 1
    assert len({result.artifact for result in results}) == 1


def rounds_of(url: str) -> int:
    """SeaweedFS makes some losers wait a second for its lock."""
    return 3 if url.startswith("s3://") else 200


def test_of_many_who_create_the_same_object_at_once_one_succeeds(url: str) -> None:
    writers, rounds = 4, rounds_of(url)
    objects = open_objects(url)
    together = Barrier(writers)

    def race(writer: int) -> list[bool]:
        won = []
        for index in range(rounds):
            together.wait()
            won.append(objects.create(f"v1/race/{index}", f"{writer}".encode()))
        return won

    with ThreadPoolExecutor(writers) as pool:
        results = list(pool.map(race, range(writers)))
    winners = [[writer for writer in range(writers) if results[writer][index]] for index in range(rounds)]
    stored = [[int(objects.read(f"v1/race/{index}"))] for index in range(rounds)]
    assert winners == stored


def test_processes_that_race_make_one_object(url: str) -> None:
    rounds = rounds_of(url)
    code = (
        "import os, sys; from infra.urls import open_objects\n"
        "objects = open_objects(sys.argv[1])\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "print(sum(objects.create(f'v1/race/{i}', sys.argv[2].encode()) for i in range(int(sys.argv[3]))))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "up\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wins = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(wins) == rounds
    owners = [open_objects(url).read(f"v1/race/{index}").decode() for index in range(rounds)]
    assert [owners.count("one"), owners.count("two")] == wins


def test_runs_and_heads_are_replaced_by_the_last_writer(store: Store) -> None:
    assert store.read_head("recipe") is None
    assert store.read_run("run-1") is None
    store.write_head("recipe", {"split": "a"})
    store.write_head("recipe", {"split": "b"})
    store.record_run("run-1", {"commits": ["a"]})
    assert store.read_head("recipe") == {"split": "b"}
    assert store.read_run("run-1") == {"commits": ["a"]}
