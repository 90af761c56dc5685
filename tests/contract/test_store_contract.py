"""What the store promises, on a folder and on a real S3 server alike."""

import hashlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from infra.commits import Commit, Input, Output
from infra.digests import DigestCache, content_digest
from infra.fingerprint import step_payload
from infra.manifest import Artifact
from infra.objects import NotFoundError, StoreError
from infra.s3_objects import PART_BYTES, S3Objects
from infra.staging import ArtifactMissingError
from infra.store import Store, open_store
from infra.urls import open_objects
from tests.seaweedfs import BUCKET, SeaweedFS
from tests.stores import commit_of, write_files

STEP = "evaluate[sft,boolq]"
CONTENT = {
    "train/0.parquet": b"train" * 1000,
    "train/deep/1.parquet": b"more",
    "reference/0.parquet": b"",
    "metrics ρ.json": b"{}",
}
AUX = {"aux/times.json": b"12:00", "README.md": b"read me", "report.html": b"<p>"}


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def artifact(store: Store, tmp_path: Path) -> Artifact:
    return store.publish(STEP, write_files(tmp_path / "out", CONTENT | AUX))


def make_commit(artifact: Artifact, root: str, seed: int = 42, **more: Any) -> Commit:
    payload = step_payload(STEP, 1, {"seed": seed, "rate": 1e-4}, {"data": "d" * 64})
    outputs = {"train": Output(path="train", digest=artifact.part("train").digest, bytes=5004)}
    inputs = {"data": Input(digest="d" * 64, uri=f"{root}/v1/data/split/x/train")}
    return commit_of(artifact, root, payload, outputs=outputs, inputs=inputs, **more)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_artifact_comes_back_as_it_was(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    staged = store.stage(artifact.uri, artifact.digest, tmp_path / "staged", aux=True)
    found = {
        path.relative_to(staged).as_posix(): path.read_bytes()
        for path in staged.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == CONTENT | AUX
    assert store.artifact(artifact.uri) == artifact
    assert artifact.bytes == sum(map(len, CONTENT.values()))


def test_the_digest_is_that_of_the_identity_files_wherever_they_are(artifact: Artifact) -> None:
    assert artifact.digest == content_digest({name: sha256(data) for name, data in CONTENT.items()})
    train = {"0.parquet": sha256(b"train" * 1000), "deep/1.parquet": sha256(b"more")}
    part = artifact.part("train")
    assert (part.digest, part.bytes, part.uri) == (content_digest(train), 5004, f"{artifact.uri}/train")


def test_aux_files_do_not_move_the_digest(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    other = store.publish(STEP, write_files(tmp_path / "other", CONTENT | {"aux/times.json": b"13:00"}))
    assert other.digest == artifact.digest
    assert other.uri != artifact.uri
    moved = store.publish(STEP, write_files(tmp_path / "moved", CONTENT | {"train/aux/a": b"identity"}))
    assert moved.digest != artifact.digest
    with pytest.raises(KeyError, match="aux"):
        artifact.part("aux")


def test_a_part_is_staged_on_its_own(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    part = artifact.part("train")
    staged = store.stage(part.uri, part.digest, tmp_path / "staged", DigestCache(tmp_path / "digests.sqlite"))
    assert {path.name for path in staged.rglob("*.parquet")} == {"0.parquet", "1.parquet"}
    assert store.stage(part.uri, part.digest, tmp_path / "staged") == staged


def test_one_file_can_be_read_alone_and_is_verified(store: Store, artifact: Artifact) -> None:
    for name, data in (CONTENT | AUX).items():
        assert store.read_file(artifact.uri, name) == data
    assert store.read_file(artifact.part("train").uri, "deep/1.parquet") == b"more"
    with pytest.raises(ArtifactMissingError, match=r"aux/other\.json"):
        store.read_file(artifact.uri, "aux/other.json")
    key = f"{artifact.uri.removeprefix(store.root + '/')}/report.html"
    open_objects(store.root).overwrite(key, b"<b>")
    with pytest.raises(StoreError, match=f"report.html is damaged: expected the SHA-256 {sha256(b'<p>')}"):
        store.read_file(artifact.uri, "report.html")
    open_objects(store.root).delete(key)
    with pytest.raises(ArtifactMissingError, match=r"report\.html"):
        store.read_file(artifact.uri, "report.html")


def test_the_newest_runs_come_first(store: Store) -> None:
    assert list(store.newest_runs(2)) == []
    for run in ("b", "c", "a"):
        store.record_run(run, {"flow_run_id": run})
        time.sleep(1.1)  # a bucket tells whole seconds
    assert [run["flow_run_id"] for run in store.newest_runs(2)] == ["a", "c"]


def test_a_file_that_was_changed_in_the_store_is_found_when_staged(
    store: Store, artifact: Artifact, tmp_path: Path
) -> None:
    open_objects(store.root).overwrite(
        f"{artifact.uri.removeprefix(store.root + '/')}/train/0.parquet", b"TRAIN" * 1000
    )
    with pytest.raises(StoreError) as caught:
        store.stage(artifact.uri, artifact.digest, tmp_path / "staged")
    for told in ("train/0.parquet", sha256(b"train" * 1000), sha256(b"TRAIN" * 1000)):
        assert told in str(caught.value)
    assert not list(tmp_path.glob("staged/*"))


def test_another_content_than_the_expected_is_refused(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{artifact.digest}, expected {'0' * 64}"):
        store.stage(artifact.uri, "0" * 64, tmp_path / "staged")


def test_a_deleted_artifact_is_missing_and_nothing_else(store: Store, artifact: Artifact, tmp_path: Path) -> None:
    assert store.exists(artifact.uri)
    assert store.exists(artifact.part("train").uri)
    gone = artifact.uri[:-36] + str(uuid.uuid4())
    assert not store.exists(gone)
    with pytest.raises(ArtifactMissingError):
        store.stage(gone, artifact.digest, tmp_path / "staged")


def test_the_progress_of_a_transfer_ends_at_its_size(store: Store, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    folder = write_files(tmp_path / "out", {"big": bytes(2 * PART_BYTES + 1), "small": b"x"})
    artifact = store.publish(STEP, folder, lambda done, total: heard.append((done, total)))
    size = 2 * PART_BYTES + 2
    assert heard[-1] == (size, size)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    staged = store.stage(artifact.uri, artifact.digest, tmp_path / "staged")
    assert (staged / "big").read_bytes() == bytes(2 * PART_BYTES + 1)


def test_a_conditional_create_refuses_what_is_there_and_knows_its_own(url: str) -> None:
    objects = open_objects(url)
    assert objects.create("v1/leases/a.json", b"mine")
    assert objects.create("v1/leases/a.json", b"mine"), "a lost response must not look like a lost race"
    assert not objects.create("v1/leases/a.json", b"theirs")
    assert objects.read("v1/leases/a.json") == b"mine"


def test_listing_shows_one_object_or_all_below_a_folder(url: str) -> None:
    objects = open_objects(url)
    for key in ("v1/a/2", "v1/a/1", "v1/a/b/3", "v1/ab"):
        objects.overwrite(key, key.encode())
    assert [(stored.key, stored.bytes) for stored in objects.find("v1/a")] == [
        ("v1/a/1", 6),
        ("v1/a/2", 6),
        ("v1/a/b/3", 8),
    ]
    assert [stored.key for stored in objects.find("v1/ab")] == ["v1/ab"]
    assert list(objects.find("v1/none")) == []
    before = next(objects.find("v1/ab")).etag
    objects.overwrite("v1/ab", b"changed")
    assert next(objects.find("v1/ab")).etag != before


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


def uses(url: str) -> list[Callable[[], object]]:
    store = open_store(url)
    return [
        lambda: store.lookup(STEP, "0" * 64),
        lambda: store.exists(f"v1/data/{STEP}/x"),
        lambda: list(store.commits(STEP)),
        lambda: store.read_head("recipe"),
        lambda: store.write_head("recipe", {}),
        lambda: open_objects(url).create("v1/x", b"x"),
    ]


def assert_all_fail(url: str, message: str) -> None:
    for use in uses(url):
        with pytest.raises(StoreError, match=message) as caught:
            use()
        assert caught.value.__cause__ is not None
        assert url in str(caught.value)


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_wrong_credentials_are_an_error_and_never_a_miss(
    s3: SeaweedFS, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert_all_fail(bucket_url, "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    assert_all_fail(bucket_url, "AWS_ACCESS_KEY_ID")


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_no_credentials_are_an_error_and_never_a_miss(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert_all_fail(bucket_url, "credentials")


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_the_server_itself_refuses_unsigned_requests(s3_environment: dict[str, str]) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = boto3.client("s3", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key="ready")


def test_a_missing_bucket_is_an_error_and_never_a_miss(s3_environment: dict[str, str], tmp_path: Path) -> None:
    assert_all_fail("s3://no-such-bucket/store", "no bucket")
    with pytest.raises(StoreError, match="no bucket"):
        open_store("s3://no-such-bucket").publish(STEP, write_files(tmp_path, {"big": bytes(2 * PART_BYTES)}))


def test_a_stopped_server_is_an_error_and_a_restarted_one_has_everything(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SeaweedFS(tmp_path / "server")
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        url = f"s3://{BUCKET}/store"
        open_store(url).write_head("recipe", {"split": "a"})
        server.stop()
        assert_all_fail(url, "cannot be reached")
        server.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        assert open_store(url).read_head("recipe") == {"split": "a"}
    finally:
        server.stop()


def test_an_interrupted_upload_is_taken_back(bucket_url: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    objects = S3Objects(*bucket_url.removeprefix("s3://").split("/", 1))
    folder = write_files(tmp_path / "out", {"big": bytes(3 * PART_BYTES)})
    with pytest.raises(KeyboardInterrupt):
        Store(objects).publish(STEP, folder, stop)
    assert list(objects.find("v1")) == []
    assert not objects._s3.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")


@pytest.mark.parametrize("acted", [True, False])
def test_an_upload_whose_last_response_was_lost_counts_when_the_server_has_acted(
    acted: bool, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = S3Objects(*bucket_url.removeprefix("s3://").split("/", 1))
    request = objects._s3.call_s3

    def answer_of_the_retry(method: str, **arguments: object) -> object:
        if method == "complete_multipart_upload":
            if acted:
                request(method, **arguments)
            raise FileNotFoundError("NoSuchUpload")
        return request(method, **arguments)

    monkeypatch.setattr(objects._s3, "call_s3", answer_of_the_retry)
    folder = write_files(tmp_path / "out", {"big": b"x" * (2 * PART_BYTES)})
    if acted:
        artifact = Store(objects).publish(STEP, folder)
        staged = open_store(bucket_url).stage(artifact.uri, artifact.digest, tmp_path / "staged")
        assert (staged / "big").read_bytes() == b"x" * (2 * PART_BYTES)
    else:
        with pytest.raises(StoreError, match="cannot write"):
            Store(objects).publish(STEP, folder)


def test_a_raw_folder_and_a_raw_file_are_copied_once_and_again_when_they_change(
    bucket_url: str, tmp_path: Path
) -> None:
    from infra.raw_inputs import describe_folder, stage_folder

    objects = open_objects(bucket_url)
    objects.overwrite("models/tiny/config.json", b"{}")
    objects.overwrite("models/tiny/weights/a.safetensors", b"weights")
    folder, file = f"{bucket_url}/models/tiny", f"{bucket_url}/models/tiny/config.json"
    assert [(item.key, item.bytes) for item in describe_folder(folder)] == [
        ("config.json", 2),
        ("weights/a.safetensors", 7),
    ]
    assert [item.key for item in describe_folder(file)] == ["config.json"]
    copy = stage_folder(folder, tmp_path / "copy", DigestCache(tmp_path / "digests.sqlite"))
    assert (copy / "weights/a.safetensors").read_bytes() == b"weights"
    assert stage_folder(file, tmp_path / "file").read_bytes() == b"{}"
    objects.overwrite("models/tiny/config.json", b"[]")
    assert stage_folder(folder, tmp_path / "copy") == copy
    assert (copy / "config.json").read_bytes() == b"{}"
    with pytest.raises(StoreError, match="nothing at this address"):
        describe_folder(f"{bucket_url}/models/none")


MEMORY = """
import re, sys
from pathlib import Path
from infra.store import open_store

def peak() -> int:
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

url, small, large, into = sys.argv[1], *map(Path, sys.argv[2:])
store = open_store(url)
store.publish("split", small)
before = peak()
artifact = store.publish("split", large)
print(peak() - before)
store.stage(artifact.uri, artifact.digest, into)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_large_transfer_needs_little_memory(bucket_url: str, tmp_path: Path) -> None:
    small = write_files(tmp_path / "small", {"a": b"a"})
    large = tmp_path / "large"
    large.mkdir()
    with (large / "model.safetensors").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(2**20))
    arguments = [bucket_url, str(small), str(large), str(tmp_path / "staged")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    upload, both = map(int, done.stdout.split())
    assert upload < 150 * 2**20
    assert both < 150 * 2**20


def test_an_object_that_is_not_there_is_not_found(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_objects(url).read("v1/none")
    with pytest.raises(NotFoundError):
        open_objects(url).download("v1/none", 10, tmp_path / "file", lambda count: None)
