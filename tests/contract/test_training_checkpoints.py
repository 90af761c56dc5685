"""Training checkpoints in a folder and in a bucket: the newest one is found, and an abandoned one goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.collector import collect, take_census
from infra.inventory import read_inventory
from infra.objects import Objects, StoreError
from infra.store import Store
from infra.training_checkpoints import TrainingCheckpoints
from tests.stores import write_files

DAY = timedelta(hours=24)


@pytest.fixture
def checkpoints(objects: Objects) -> TrainingCheckpoints:
    return TrainingCheckpoints(Store(objects), "forget", "f" * 64)


def test_the_newest_checkpoint_takes_the_place_of_the_one_before(
    objects: Objects, checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    assert checkpoints.newest() is None
    for step in (10, 20):
        weights = f"weights after {step}".encode()
        checkpoints.keep(write_files(tmp_path / f"step-{step}", {"weights.safetensors": weights}), step)
        newest = checkpoints.newest()
        assert newest is not None and newest.optimizer_step == step
        fetched = checkpoints.fetch(newest, tmp_path / "scratch")
        assert fetched is not None and (fetched / "weights.safetensors").read_bytes() == weights
    assert len({stored.key.split("/")[3] for stored in objects.find("v1/data")}) == 1


def test_a_record_with_a_flipped_digit_is_damaged(
    objects: Objects, checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    checkpoints.keep(write_files(tmp_path / "step-10", {"weights.safetensors": b"weights"}), 10)
    (stored,) = objects.find("v1/training")
    objects.overwrite(stored.key, objects.read(stored.key).replace(b'"optimizer_step":10', b'"optimizer_step":11'))
    with pytest.raises(StoreError, match="is damaged: its checksum"):
        checkpoints.newest()


def test_the_checkpoint_of_an_abandoned_training_is_collected(
    objects: Objects, checkpoints: TrainingCheckpoints, tmp_path: Path
) -> None:
    checkpoints.keep(write_files(tmp_path / "step-10", {"weights.safetensors": b"weights"}), 10)
    inventory = read_inventory(objects)
    assert take_census(objects, inventory, now=datetime.now(UTC), grace=DAY).garbage == ()

    later = datetime.now(UTC) + 2 * DAY
    garbage = take_census(objects, inventory, now=later, grace=DAY).garbage
    assert [(item.kind, item.label) for item in garbage] == [("upload", "forget"), ("write", "forget")]
    assert all(gone for _, gone in collect(objects, inventory, garbage))
    assert checkpoints.newest() is None
    assert list(objects.find("v1/data")) == []
