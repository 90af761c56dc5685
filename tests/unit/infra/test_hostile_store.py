"""A store that somebody else writes to: nothing of it is unpickled, nothing outside of it is read or deleted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.fetching import MARKER, PART, fetch
from infra.inventory import read_inventory
from infra.lease import Leases
from infra.manifest import Manifest, files_of
from infra.objects import StoreError
from infra.staging import ArtifactMissingError
from infra.store import Store, open_store
from infra.training_checkpoints import TrainingCheckpoints
from tests.planted import Planted
from tests.stores import make_step, write_files

FINGERPRINT = "a" * 64
KEYS = {
    "commit": f"v1/commits/split/{FINGERPRINT}.json",
    "history": f"v1/history/split/{FINGERPRINT}/u.json",
    "run": "v1/runs/run.json",
    "head": "v1/heads/recipe.json",
    "pin": "v1/pins/best.json",
    "training": f"v1/training/split/{FINGERPRINT}.json",
    "manifest": "v1/data/split/u/manifest.json",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def entry(path: str) -> dict[str, object]:
    return {"path": path, "bytes": 1, "sha256": "0" * 64, "role": "identity"}


def manifest(*paths: str) -> bytes:
    return json.dumps({"schema": 1, "files": [entry(path) for path in sorted(paths)]}).encode()


def readers(store: Store) -> dict[str, Callable[[], object]]:
    """What reads each kind of record."""
    return {
        "commit": lambda: store.lookup("split", FINGERPRINT),
        "history": lambda: read_inventory(store.objects),
        "run": lambda: store.read_run("run"),
        "head": lambda: store.read_head("recipe"),
        "pin": lambda: read_inventory(store.objects),
        "training": lambda: TrainingCheckpoints(store, "split", FINGERPRINT).newest(),
        "manifest": lambda: store.artifact(f"{store.root}/v1/data/split/u"),
    }


@pytest.mark.security("pickles in the store and in Prefect's results")
@pytest.mark.parametrize("record", KEYS)
def test_a_pickle_in_the_place_of_a_record_is_a_damaged_record(record: str, store: Store, tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    store.objects.overwrite(KEYS[record], planted.pickle)
    with pytest.raises(StoreError, match="damaged"):
        readers(store)[record]()
    assert not planted.sprung


@pytest.mark.security("pickles in the store and in Prefect's results")
def test_a_pickle_in_the_place_of_a_lease_is_nobodys(store: Store, tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    store.objects.overwrite(f"v1/leases/split/{FINGERPRINT}.json", planted.pickle)
    assert Leases(store.objects, 60).holder("split", FINGERPRINT) is None
    assert not planted.sprung


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize(
    "paths", [("a", "A"), ("é", "e\u0301"), ("a", "a/b"), ("a/b", "A/B"), ("a", "a"), ("straße", "strasse")]
)
def test_a_manifest_cannot_name_a_file_twice_on_any_file_system(paths: tuple[str, str]) -> None:
    with pytest.raises(StoreError, match="damaged"):
        Manifest.parse(manifest(*paths), "url")


def test_files_that_differ_in_case_only_are_not_stored(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "out", {"a.json": b"1", "A.json": b"2"})
    if len(list(folder.iterdir())) == 1:
        pytest.skip("this file system does not tell the case of names apart")
    with pytest.raises(StoreError, match="take it for another file"):
        files_of(folder)


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_that_was_put_into_an_artifact_is_not_followed(link: str, store: Store, tmp_path: Path) -> None:
    outside = write_files(tmp_path / "outside", {"rows": b"the same bytes"})
    artifact = store.publish("split", write_files(tmp_path / "out", {"train/rows": b"the same bytes"}))
    folder = Path(artifact.uri)
    (folder / "train/rows").unlink()
    if link == "file":
        (folder / "train/rows").symlink_to(outside / "rows")
    else:
        (folder / "train").rmdir()
        (folder / "train").symlink_to(outside)
    with pytest.raises(StoreError, match="is a link"):
        store.stage(artifact.uri, artifact.digest, tmp_path / "staged")


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("name", [MARKER, PART])
def test_a_manifest_cannot_name_what_a_copy_keeps_its_books_with(name: str, store: Store, tmp_path: Path) -> None:
    commit = make_step(store, write_files(tmp_path / "out", {"a": b"a"}), "split")
    with pytest.raises(StoreError, match="no step writes"):
        fetch(store.objects, commit, Manifest.parse(manifest("a", name), "url"), "", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize(
    "artifact", ["v1/commits", "v1/data", "v1", "../other", "/etc", "v1/data/split/../../runs"]
)
def test_a_checkpoints_record_cannot_have_anything_else_deleted(
    artifact: str, store: Store, tmp_path: Path
) -> None:
    commit = make_step(store, write_files(tmp_path / "out", {"a": b"a"}), "split")
    planted = {"artifact": artifact, "digest": FINGERPRINT, "optimizer_step": 1}
    store.objects.overwrite(KEYS["training"], json.dumps(planted).encode())
    checkpoints = TrainingCheckpoints(store, "split", FINGERPRINT)
    for use in (checkpoints.discard, lambda: checkpoints.keep(tmp_path / "out", 2)):
        with pytest.raises(StoreError, match="damaged"):
            use()
    assert store.lookup("split", commit.fingerprint) == commit


@pytest.mark.security("paths and links that lead out of a folder")
@pytest.mark.parametrize("path", ["../../outside", "/etc", "train/../..", "C:\\x"])
def test_an_output_of_a_commit_cannot_be_outside_of_its_artifact(path: str, store: Store, tmp_path: Path) -> None:
    commit = make_step(store, write_files(tmp_path / "out", {"train/a": b"a"}), "split")
    key = f"v1/commits/split/{commit.fingerprint}.json"
    record = json.loads(store.objects.read(key))
    record["outputs"]["train"]["path"] = path
    store.objects.overwrite(key, json.dumps(record).encode())
    with pytest.raises(StoreError, match="damaged"):
        store.lookup("split", commit.fingerprint)


@pytest.mark.security("paths and links that lead out of a folder")
def test_links_in_the_store_are_not_followed_when_it_is_tidied(store: Store, tmp_path: Path) -> None:
    outside = write_files(tmp_path / "outside", {"precious": b"x"})
    artifact = store.publish("split", write_files(tmp_path / "out", {"a": b"a"}))
    (Path(artifact.uri) / "link").symlink_to(outside)
    store.objects.delete_folder(artifact.uri.removeprefix(f"{store.root}/"))
    assert (outside / "precious").read_bytes() == b"x"
    Path(artifact.uri).symlink_to(outside)
    with pytest.raises((StoreError, ArtifactMissingError)):
        store.objects.delete_folder(artifact.uri.removeprefix(f"{store.root}/"))
    assert (outside / "precious").read_bytes() == b"x"
