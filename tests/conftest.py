"""Servers that many tests share. Each lives as long as the test session."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

# before torch starts its threads: ones that spin while they wait make a busy machine ten times slower
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

from infra.objects import Objects
from infra.urls import open_objects
from tests.seaweedfs import BUCKET, SeaweedFS


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


@pytest.fixture
def bucket_url(s3_environment: dict[str, str]) -> str:
    """A store of the test's own on the S3 server."""
    return f"s3://{BUCKET}/{uuid.uuid4()}/store"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same store twice: a folder, and S3."""
    return str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("bucket_url")


@pytest.fixture
def objects(url: str) -> Objects:
    """The place below such a store."""
    return open_objects(url)
