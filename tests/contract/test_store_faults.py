"""Every operation on the store under every kind of fault, once: the trials of `python -m benchmarks faults`."""

import json
from pathlib import Path

import pytest

from benchmarks.faults.kinds import KINDS, Kind
from benchmarks.faults.operations import Adopt, Exists, Lookup, Publish, Records, Replace, Stage
from benchmarks.faults.trials import Result, Trial, run_trials
from infra.commits import decode, encode
from infra.objects import StoreError
from infra.store import open_store
from tests.seaweedfs import SeaweedFS
from tests.stores import make_step, write_files

SMALL = (Publish, Adopt, Replace, Lookup, Exists, Stage, Records)


@pytest.fixture(scope="module")
def results(s3: SeaweedFS) -> list[Result]:
    asked = [Trial(operation, kind, seed) for seed, operation in enumerate(SMALL) for kind in KINDS]
    return list(run_trials(asked, s3))


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_of_the_store_gives_a_wrong_result(kind: Kind, results: list[Result]) -> None:
    of_kind = [result for result in results if result.trial.kind == kind]
    assert [result for result in of_kind if result.outcome == "lost"] == []
    assert sum(result.injected for result in of_kind) > 0


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_committed(results: list[Result]) -> None:
    found = [result for result in results if result.trial.kind == "ignored condition" and result.injected]
    assert {result.trial.operation for result in found} == {Publish, Adopt, Replace}
    assert all("ignores conditional writes" in result.said for result in found)


def test_a_record_with_another_digit_is_damaged(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    commit = make_step(store, write_files(tmp_path / "out", {"train/a": b"a"}), "split")
    record = encode(commit.model_copy(update={"summary": {"acc": 0.4375}}))
    assert decode(record, store.root, "key").summary == {"acc": 0.4375}
    for old, new in ((b"0.4375", b"0.5375"), (commit.digest.encode(), b"0" * 64), (b'"bytes":1', b'"bytes":3')):
        assert old in record
        with pytest.raises(StoreError, match="checksum"):
            decode(record.replace(old, new), store.root, "key")
    older = json.loads(record)
    del older["checksum"]
    assert decode(json.dumps(older).encode(), store.root, "key").digest == commit.digest
