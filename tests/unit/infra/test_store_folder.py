"""The store in a folder: what is particular to it, and how damaged records are met."""

import json
import os
from pathlib import Path

import pytest

from infra.manifest import files_of
from infra.objects import NotFoundError, StoreError, check_key
from infra.store import Store, open_store
from infra.urls import open_objects

FINGERPRINT = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def write(store: Store, key: str, data: bytes) -> None:
    path = Path(store.root, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_file_url_and_a_path_open_the_same_store(tmp_path: Path) -> None:
    folder = tmp_path / "a store"
    assert open_store(folder.as_uri()).root == open_store(str(folder)).root == str(folder)


@pytest.mark.security("secrets where others read")
@pytest.mark.parametrize("url", ["", "gs://bucket/x", "s3://", "s3://key:secret@bucket/x", "file://host/x"])
def test_other_urls_are_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"schema": 2}', b"\xff\xfe"])
def test_a_damaged_commit_is_an_error_and_never_a_miss(store: Store, data: bytes) -> None:
    write(store, f"v1/commits/split/{FINGERPRINT}.json", data)
    with pytest.raises(StoreError, match=f"v1/commits/split/{FINGERPRINT}.json"):
        store.lookup("split", FINGERPRINT)


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff"])
def test_a_damaged_head_is_an_error(store: Store, data: bytes) -> None:
    write(store, "v1/heads/recipe.json", data)
    with pytest.raises(StoreError, match="damaged"):
        store.read_head("recipe")


def test_an_unreadable_store_is_an_error_and_never_a_miss(store: Store) -> None:
    write(store, "v1/commits", b"a file where a folder should be")
    with pytest.raises(StoreError, match="is a file"):
        store.lookup("split", FINGERPRINT)
    with pytest.raises(StoreError):
        list(store.commits("split"))


ESCAPES = ["/etc/passwd", "../x", "a/../../x", "a//b", "./a", "..", "", "a\\..\\b", "C:/x", "c:x", "a\x00b"]


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("path", ESCAPES)
def test_a_manifest_cannot_name_a_file_outside_its_folder(store: Store, tmp_path: Path, path: str) -> None:
    entry = {"path": path, "bytes": 1, "sha256": "0" * 64, "role": "identity"}
    write(store, "v1/data/split/u/manifest.json", json.dumps({"schema": 1, "files": [entry]}).encode())
    with pytest.raises(StoreError, match="manifest"):
        store.stage(f"{store.root}/v1/data/split/u", "0" * 64, tmp_path / "staged")


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("key", ESCAPES)
def test_a_key_cannot_leave_the_store(key: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        check_key(key)


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_names_of_steps_runs_and_recipes_are_checked(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        store.write_head(name, {})
    with pytest.raises(ValueError, match="name"):
        store.lookup(name, FINGERPRINT)


@pytest.mark.security("paths and links that lead out of a folder")
def test_what_cannot_be_stored_faithfully_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    for make, message in [
        (lambda folder: (folder / "link").symlink_to(target), "regular file"),
        (lambda folder: (folder / "broken").symlink_to(folder / "gone"), "regular file"),
        (lambda folder: os.mkfifo(folder / "pipe"), "regular file"),
        (lambda folder: (folder / "a\\b").touch(), "rename"),
        (lambda folder: (folder / "manifest.json").touch(), "belongs to the store"),
    ]:
        folder = tmp_path / f"folder-{message}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        make(folder)
        with pytest.raises(StoreError, match=message):
            files_of(folder)


def test_a_link_to_a_file_is_stored_as_the_file(store: Store, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"weights")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(blob)
    artifact = store.publish("reference", folder)
    stored = Path(artifact.uri, "model.safetensors")
    assert stored.read_bytes() == b"weights"
    assert not stored.is_symlink()


def test_a_moved_store_still_works(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    artifact = store.publish("split", folder)
    moved = tmp_path / "moved"
    Path(store.root).rename(moved)
    uri = artifact.uri.replace(store.root, str(moved))
    assert open_store(str(moved)).stage(uri, artifact.digest, tmp_path) == Path(uri)
    with pytest.raises(StoreError, match="no artifact of the store"):
        open_store(str(moved)).exists(artifact.uri + "x/../..")


def test_a_failed_write_leaves_no_object_and_no_litter(tmp_path: Path) -> None:
    objects = open_objects(str(tmp_path / "store"))
    objects.overwrite("v1/heads/a.json", b"old")
    Path(objects.root, "v1/heads/b.json").mkdir()
    with pytest.raises(StoreError):
        objects.overwrite("v1/heads/b.json", b"new")
    assert list(Path(objects.root, ".tmp").iterdir()) == []
    with pytest.raises(NotFoundError):
        objects.read("v1/heads/c.json")
