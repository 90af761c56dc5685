"""Which runs of a store belong to the same sweep, and how much of the store is read to know."""

from pathlib import Path
from typing import Any

import pytest

from infra.commits import Commit, Input
from infra.folder_objects import FolderObjects
from infra.siblings import RUNS_READ, sibling_runs
from infra.store import Store
from tests.stores import make_step, write_files

FIELD = ("partition", "rho")
MAY_DIFFER = {"partition": ("config", *FIELD), "forget": ("inputs", "token_labels")}
DATA, OTHER_DATA = "d" * 64, "e" * 64


class CountingObjects(FolderObjects):
    """A folder that counts what is read of it."""

    reads = 0

    def read(self, key: str) -> bytes:
        self.reads += 1
        return super().read(key)


@pytest.fixture
def objects(tmp_path: Path) -> CountingObjects:
    return CountingObjects(tmp_path / "store")


@pytest.fixture
def store(objects: CountingObjects) -> Store:
    return Store(objects)


def run(store: Store, rho: str, *, name: str = "a", data: str = DATA, steps: int = 2) -> dict[str, Any]:
    """The record of a run of the recipe `name`, of which the first `steps` steps are done."""
    out = write_files(Path(store.root).parent / "out", {"file": f"{rho} {data}".encode()})
    partition = make_step(store, out, "partition", config={"partition": {"rho": rho, "scope": "corpus"}})
    inputs: dict[str, Commit | Input] = {"token_labels": partition, "data": Input(digest=data)}
    forget = make_step(store, out, "forget", inputs, config={"seed": 1})
    done = {commit.step: commit for commit in (partition, forget)[:steps]}
    record = {
        "identity": {"name": name, "partition": {"rho": rho, "scope": "corpus"}},
        "steps": {
            label: {"step": commit.step, "fingerprint": commit.fingerprint} for label, commit in done.items()
        },
    }
    store.record_run(f"run-{rho}-{name}-{data[0]}-{steps}", record)
    return record


def test_runs_that_differ_in_the_field_alone_belong_together(store: Store) -> None:
    run(store, "0.5")
    run(store, "0.9")
    found = sibling_runs(store, run(store, "0.7"), FIELD, MAY_DIFFER)
    assert found.keys() == {"0.5", "0.7", "0.9"}
    assert all(commits.keys() == {"partition", "forget"} for commits in found.values())
    assert len({commits["forget"].fingerprint for commits in found.values()}) == 3


@pytest.mark.parametrize(
    "other", [{"name": "b"}, {"data": OTHER_DATA}, {"steps": 1}], ids=["recipe", "content", "unfinished"]
)
def test_other_runs_do_not_belong(store: Store, other: dict[str, Any]) -> None:
    run(store, "0.5", **other)
    assert sibling_runs(store, run(store, "0.7"), FIELD, MAY_DIFFER).keys() == {"0.7"}


def test_a_thousand_runs_cost_no_more_than_the_newest(store: Store, objects: CountingObjects) -> None:
    record = run(store, "0.7")
    for number in range(1000):
        store.record_run(f"foreign-{number}", {**record, "identity": {**record["identity"], "name": "b"}})
    objects.reads = 0
    sibling_runs(store, record, FIELD, MAY_DIFFER)
    assert objects.reads == RUNS_READ + 4  # the run's own commits, to compare with and to hand out
