"""Training checkpoints are in the store while a training goes on, and gone when it is over."""

import os
import threading
from pathlib import Path

import pytest

from infra.objects import StoreError
from infra.store import Store, open_store
from infra.training_checkpoints import TrainingCheckpoints
from tasks.preserve import Preserved

FINGERPRINT = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def checkpoints(store: Store) -> TrainingCheckpoints:
    return TrainingCheckpoints(store, "forget", FINGERPRINT)


def save(work: Path, step: int, content: bytes = b"weights") -> dict[str, object]:
    folder = work / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(content)
    return {"kind": "checkpoint", "step": step, "folder": str(folder)}


def artifacts(store: Store) -> list[str]:
    return sorted({stored.key.split("/")[3] for stored in store.objects.find("v1/data/forget")})


def test_another_host_goes_on_from_what_a_stopped_training_has_saved(
    checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    work = tmp_path / "one" / "work"
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
        preserved(save(work, 4, b"four"))
        raise KeyboardInterrupt

    elsewhere = tmp_path / "other" / "work"
    with Preserved("forget", checkpoints, elsewhere):
        found = list(elsewhere.glob("step-*/weights.safetensors"))
    assert [path.parent.name for path in found] == ["step-4"]
    assert found[0].read_bytes() == b"four"


def test_a_newer_checkpoint_of_ones_own_is_kept(checkpoints: TrainingCheckpoints, tmp_path: Path) -> None:
    work = tmp_path / "work"
    save(work, 9, b"nine")
    other = tmp_path / "other" / "work"
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, other) as preserved:
        preserved(save(other, 4))
        raise KeyboardInterrupt
    with Preserved("forget", checkpoints, work):
        assert [path.name for path in work.glob("step-*")] == ["step-9"]


def test_the_store_holds_one_checkpoint_and_none_when_the_training_is_over(
    store: Store, checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    for step in (2, 4, 6):
        with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
            preserved(save(work, step))
            raise KeyboardInterrupt
    newest = checkpoints.newest()
    assert newest is not None and newest.optimizer_step == 6
    assert len(artifacts(store)) == 1

    checkpoints.discard()
    assert checkpoints.newest() is None
    assert artifacts(store) == []
    checkpoints.discard()


def test_the_training_may_replace_a_checkpoint_while_it_is_copied(
    checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
        message = save(work, 2, b"two")
        preserved(message)
        (work / "step-2" / "weights.safetensors").unlink()
        preserved({**message, "step": 3, "folder": str(work / "step-3")})  # told of, and replaced already
        raise KeyboardInterrupt
    newest = checkpoints.newest()
    assert newest is not None and newest.optimizer_step == 2
    fetched = checkpoints.fetch(newest, tmp_path / "fetched")
    assert fetched is not None and (fetched / "weights.safetensors").read_bytes() == b"two"


def test_what_a_killed_run_was_copying_is_in_nobodys_way(checkpoints: TrainingCheckpoints, tmp_path: Path) -> None:
    work = tmp_path / "work"
    message = save(work, 2)
    (tmp_path / "held" / "step-2").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
        preserved(message)
        raise KeyboardInterrupt
    newest = checkpoints.newest()
    assert newest is not None and newest.optimizer_step == 2


def test_a_checkpoint_that_was_collected_is_no_checkpoint(
    store: Store, checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    checkpoints.keep(Path(str(save(tmp_path, 2)["folder"])), 2)
    newest = checkpoints.newest()
    assert newest is not None
    store.objects.delete_folder(newest.artifact)
    with Preserved("forget", checkpoints, tmp_path / "work"):
        assert not list((tmp_path / "work").glob("step-*"))


def test_one_checkpoint_waits_at_most(
    store: Store, checkpoints: TrainingCheckpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploading, go_on = threading.Event(), threading.Event()
    keep = checkpoints.keep

    def slowly(folder: Path, step: int) -> None:
        uploading.set()
        assert go_on.wait(30)
        keep(folder, step)

    monkeypatch.setattr(checkpoints, "keep", slowly)
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
        preserved(save(work, 1))
        assert uploading.wait(30)
        for step in (2, 3, 4):
            preserved(save(work, step))
        assert sorted(path.name for path in (tmp_path / "held").iterdir()) == ["step-1", "step-4"]
        go_on.set()
        raise KeyboardInterrupt
    newest = checkpoints.newest()
    assert newest is not None and newest.optimizer_step == 4


def test_a_file_system_without_links_is_copied_on(
    checkpoints: TrainingCheckpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def refuse(source: str, target: str) -> None:
        if "held" in str(target):
            raise PermissionError(1, "Operation not permitted")
        link(source, target)  # the store's own

    monkeypatch.setattr(os, "link", refuse)
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt), Preserved("forget", checkpoints, work) as preserved:
        preserved(save(work, 2))
        raise KeyboardInterrupt
    newest = checkpoints.newest()
    assert newest is not None and newest.optimizer_step == 2


def test_a_damaged_pointer_is_named(store: Store, checkpoints: TrainingCheckpoints) -> None:
    store.objects.overwrite(f"v1/training/forget/{FINGERPRINT}.json", b"{")
    with pytest.raises(StoreError, match=r"v1/training/forget/a+\.json is damaged"):
        checkpoints.newest()
