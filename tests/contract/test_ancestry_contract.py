"""Following and checking a lineage, on a folder and on a real S3 server alike."""

import json
from pathlib import Path

import pytest

from infra.ancestry import read_all_records
from infra.ancestry_check import check_artifacts
from infra.commits import Commit, Input
from infra.objects import Objects
from infra.store import Store
from infra.urls import open_objects
from infra.verification import Fault
from tests.stores import make_step, write_files

RAW = Input(digest="a" * 64, uri="s3://elsewhere/rows.jsonl")


@pytest.fixture
def objects(url: str) -> Objects:
    return open_objects(url)


@pytest.fixture
def chain(objects: Objects, tmp_path: Path) -> tuple[Commit, Commit]:
    """A partition, and the fine-tune made from it."""
    store = Store(objects)
    partition = make_step(
        store, write_files(tmp_path / "labels", {"labels.bin": b"labels"}), "partition", {"data": RAW}
    )
    model = write_files(tmp_path / "model", {"model.bin": b"model"})
    return partition, make_step(store, model, "forget", {"token_labels": partition, "base": RAW})


def faults(objects: Objects, commit: Commit) -> list[Fault]:
    records = read_all_records(objects)
    ancestry = records.ancestry(records.find(commit.fingerprint))
    return [*ancestry.faults, *check_artifacts(records, ancestry, lambda done, total: None)]


def test_inputs_lead_to_commits_or_out_of_the_store(objects: Objects, chain: tuple[Commit, Commit]) -> None:
    records = read_all_records(objects)
    ancestry = records.ancestry(records.find(chain[1].uri))
    assert [step.record.label for step in ancestry.steps] == ["forget", "partition"]
    sources = {source.name: source for source in ancestry.target.sources}
    assert sources["token_labels"].record == ancestry.steps[1].record
    assert (sources["base"].record, sources["base"].inside) == (None, False)
    assert faults(objects, chain[1]) == []


def test_a_changed_file_and_a_changed_commit_are_named(objects: Objects, chain: tuple[Commit, Commit]) -> None:
    partition, forget = chain
    objects.overwrite(f"{partition.artifact}/labels.bin", b"lAbels")
    key = f"v1/commits/forget/{forget.fingerprint}.json"
    data = json.loads(objects.read(key))
    data["payload"]["config"]["seed"] = "another"
    objects.overwrite(key, json.dumps(data).encode())
    assert {fault.file for fault in faults(objects, forget)} == {key, "labels.bin"}


def test_an_evicted_artifact_that_was_made_again_is_no_fault(
    objects: Objects, chain: tuple[Commit, Commit], tmp_path: Path
) -> None:
    partition, forget = chain
    store = Store(objects)
    again = store.publish("partition", tmp_path / "labels").uri.removeprefix(f"{objects.root}/")
    for name in ("manifest.json", "labels.bin"):
        objects.delete(f"{partition.artifact}/{name}")
    assert [fault.file for fault in faults(objects, forget)] == ["manifest.json"]
    store.replace(partition, partition.model_copy(update={"artifact": again}))
    assert faults(objects, forget) == []
    objects.overwrite(f"{again}/labels.bin", b"lAbels")
    assert [fault.uri for fault in faults(objects, forget)] == [f"{objects.root}/{again}"]
