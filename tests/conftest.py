"""Servers that many tests share. Each lives as long as the test session."""

import os
from collections.abc import Iterator

# before torch starts its threads: ones that spin while they wait make a busy machine ten times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from tests.seaweedfs import SeaweedFS


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A real S3 server with credentials and one bucket. Use `s3_environment` to talk to it."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_environment(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The standard AWS variables point at the server during the test, and no others are set."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3.environment()
