"""What the user is told of a store that is wrong, by a real S3 server where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.input_faults.meeting import lost
from benchmarks.input_faults.stores import CASES, Server, StoreCase, meet_store


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    server = Server(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    yield server.environment()
    server.stop()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_store_that_cannot_be_used_is_told(case: StoreCase, client: dict[str, str], tmp_path: Path) -> None:
    assert not (wrong := lost(case.says, meet_store(case, client, tmp_path))), wrong


def test_the_store_that_the_cases_spoil_is_good(client: dict[str, str], tmp_path: Path) -> None:
    assert meet_store(StoreCase("good", ()), client, tmp_path) is None
