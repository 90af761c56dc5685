"""`doctor`'s probes of the store, against sound stores and against careless ones."""

import os
import time
from pathlib import Path

import pytest

import infra.doctor_store
from infra.doctor_store import probe_clock, probe_credentials, probe_store
from infra.folder_objects import FolderObjects
from infra.objects import Objects, StoreError
from infra.settings import Settings
from infra.urls import open_objects
from tests.seaweedfs import BUCKET, SeaweedFS


def settings(url: str) -> Settings:
    return Settings.from_environment(store=url)


def test_a_sound_store_passes_and_keeps_nothing_of_the_probes(url: str) -> None:
    assert "refuses" in probe_store(settings(url))
    assert "rejected" in probe_credentials(settings(url)) or not url.startswith("s3://")
    assert "agree" in probe_clock(settings(url))
    assert list(open_objects(url).find("v1")) == []


class WithoutIfNoneMatch(FolderObjects):
    def create(self, key: str, data: bytes) -> bool:
        self.overwrite(key, data)
        return True


class WithoutIfMatch(FolderObjects):
    def swap(self, key: str, data: bytes, version: str) -> bool:
        self.overwrite(key, data)
        return True


@pytest.mark.parametrize(
    ("careless", "header"), [(WithoutIfNoneMatch, "If-None-Match"), (WithoutIfMatch, r"\(If-Match")]
)
def test_a_store_that_ignores_conditions_is_a_fault(
    careless: type[FolderObjects], header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.doctor_store, "open_objects", lambda url: careless(Path(url)))
    with pytest.raises(StoreError, match=header):
        probe_store(settings(str(tmp_path)))
    assert list(FolderObjects(tmp_path).find("v1")) == []


class OpenSeaweedFS(SeaweedFS):
    """The same server without credentials: everybody is let in."""

    def _command(self, data: Path, identities: Path, ports: list[int]) -> list[str]:
        return [word for word in super()._command(data, identities, ports) if not word.startswith("-s3.config=")]


def test_a_server_without_authentication_is_a_fault(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = OpenSeaweedFS(tmp_path / "server")
    with monkeypatch.context() as without:  # it would take the credentials of its own environment
        for name in s3_environment:
            without.delenv(name)
        server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        with pytest.raises(StoreError, match="accepts a wrong secret"):
            probe_credentials(settings(f"s3://{BUCKET}/store"))
        assert list(open_objects(f"s3://{BUCKET}/store").find("v1")) == []
    finally:
        server.stop()


def test_a_clock_that_differs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class InTheFuture(FolderObjects):
        def create(self, key: str, data: bytes) -> bool:
            created = super().create(key, data)
            later = time.time() + 60
            os.utime(self.path(key), (later, later))
            return created

    def open_late(url: str) -> Objects:
        return InTheFuture(Path(url))

    monkeypatch.setattr(infra.doctor_store, "open_objects", open_late)
    assert "WARNING: the store's clock and ours differ by 60 s" in probe_clock(settings(str(tmp_path)))
