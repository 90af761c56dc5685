"""A Prefect server that the contract tests share."""

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="package")
def prefect_server() -> Iterator[None]:
    """A real server of its own, which Prefect's client in this process talks to."""
    with prefect_test_harness(server_startup_timeout=120):
        yield
