"""The team stack, one for each module that asks for it."""

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client

from tests.stack import GPU_RUNS, Running, command, exported


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("state") / "stack"
    try:
        lines = command(folder, "up", "--gpu-runs", str(GPU_RUNS))
        with exported(lines) as environment, get_client(sync_client=True) as client:
            yield Running(folder, environment, client)
    finally:
        command(folder, "down")
