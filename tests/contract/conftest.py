"""What the contract tests share: a Prefect server, a store and an artifact in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from infra.manifest import Artifact
from infra.store import Store, open_store
from tests.contract.published import AUX, CONTENT, STEP
from tests.stores import write_files


@pytest.fixture(scope="package")
def prefect_server() -> Iterator[None]:
    """A real server of its own, which Prefect's client in this process talks to."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


@pytest.fixture
def artifact(store: Store, tmp_path: Path) -> Artifact:
    return store.publish(STEP, write_files(tmp_path / "out", CONTENT | AUX))
