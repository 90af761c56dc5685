"""What a store promises of artifacts, on a folder and on a real S3 server alike."""

import hashlib
import uuid
from pathlib import Path

import pytest

from infra.digests import DigestCache, content_digest
from infra.manifest import Artifact
from infra.objects import NotFoundError, StoreError
from infra.s3_objects import PART_BYTES
from infra.staging import ArtifactMissingError
from infra.store import Store
from infra.urls import open_objects
from tests.contract.published import AUX, CONTENT, STEP
from tests.stores import write_files


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


def test_an_object_that_is_not_there_is_not_found(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_objects(url).read("v1/none")
    with pytest.raises(NotFoundError):
        open_objects(url).download("v1/none", 10, tmp_path / "file", lambda count: None)
