"""A plan in a store with more commits than it reads: never surer than it can be."""

from pathlib import Path

import pytest

from infra.commits import Commit
from infra.lease import Leases
from infra.plan import COMPARED, Assessment, Earlier, assess
from infra.store import Store, open_store
from tests.stores import make_step, write_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "files", {"data.bin": b"data"})


def assessed(store: Store, seed: int, *, unknown: bool, last: Commit | None = None) -> Assessment:
    return assess(
        store,
        Leases(store.objects, ttl=60),
        Earlier(store),
        step="score",
        version=1,
        config={"seed": seed},
        inputs={},
        unknown={"data": "split runs first"} if unknown else {},
        last=last.fingerprint if last else None,
    )


def test_a_step_whose_inputs_are_unknown_may_be_in_the_store_where_not_all_was_read(
    store: Store, folder: Path
) -> None:
    for seed in range(COMPARED):
        make_step(store, folder, "score", config={"seed": seed})
    assert assessed(store, COMPARED, unknown=True).state == "run"
    make_step(store, folder, "score", config={"seed": COMPARED + 1})
    assert assessed(store, COMPARED, unknown=True).state == "maybe"


def test_a_step_is_compared_with_what_the_last_run_used_however_old(store: Store, folder: Path) -> None:
    last = make_step(store, folder, "score", config={"seed": 0, "dtype": "float32"})
    for seed in range(1, COMPARED + 1):
        make_step(store, folder, "score", config={"seed": seed})
    (reason,) = assessed(store, COMPARED + 1, unknown=False).reasons
    assert (reason.field, reason.new) == ("seed", COMPARED + 1)
    reasons = assessed(store, COMPARED + 1, unknown=False, last=last).reasons
    assert {(reason.field, reason.old) for reason in reasons} == {("seed", 0), ("dtype", "float32")}


def test_a_step_among_many_is_found_by_its_fingerprint(store: Store, folder: Path) -> None:
    for seed in range(COMPARED + 2):
        make_step(store, folder, "score", config={"seed": seed})
    assert assessed(store, 0, unknown=False).state == "cached"
