"""File digests and their memory."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import digests
from infra.digests import DigestCache, content_digest, file_sha256
from infra.objects import StoreError


def old_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read."""
    read: list[Path] = []
    monkeypatch.setattr(digests, "file_sha256", lambda path: (read.append(path), file_sha256(path))[1])
    return read


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, hashed: list[Path]) -> None:
    file = old_file(tmp_path / "data.jsonl", b"one")
    cache = DigestCache(tmp_path / "cache" / "digests.sqlite")
    assert cache.sha256(file) == cache.sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert DigestCache(cache.path).sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(hashed) == 1
    file.write_bytes(b"two")
    assert cache.sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    file = old_file(tmp_path / "data", b"one")
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.sha256(file)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    other = tmp_path / "other"
    other.write_bytes(b"two")
    os.utime(other, ns=times)
    other.replace(file)
    assert cache.sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path: Path, hashed: list[Path]) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"one")
    cache = DigestCache(tmp_path / "digests.sqlite")
    cache.sha256(file)
    cache.sha256(file)
    assert len(hashed) == 2


def test_a_read_only_cache_writes_nothing_and_uses_what_is_known(tmp_path: Path, hashed: list[Path]) -> None:
    file = old_file(tmp_path / "data", b"one")
    path = tmp_path / "digests.sqlite"
    assert DigestCache(path, read_only=True).sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert not path.exists()
    DigestCache(path).sha256(file)
    before = path.read_bytes()
    other = old_file(tmp_path / "other", b"two")
    read_only = DigestCache(path, read_only=True)
    read_only.sha256(file)
    assert hashed == [file, file]
    read_only.sha256(other)
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data", "digests.sqlite", "other"]


def test_several_processes_share_one_cache(tmp_path: Path) -> None:
    files = [old_file(tmp_path / f"{index}.bin", bytes([index])) for index in range(30)]
    code = (
        "import sys; from pathlib import Path; from infra.digests import DigestCache\n"
        "cache = DigestCache(Path(sys.argv[1]))\n"
        "for name in sys.argv[2:]: cache.sha256(Path(name))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "digests.sqlite"), *map(str, files)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    cache = DigestCache(tmp_path / "digests.sqlite")
    assert [cache.sha256(file) for file in files] == [file_sha256(file) for file in files]


def test_a_damaged_cache_says_that_it_may_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "digests.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="delete it"):
        DigestCache(path)


def test_the_content_digest_depends_on_names_and_contents_only() -> None:
    digest = content_digest({"a": "1", "b": "2"})
    assert digest == content_digest({"b": "2", "a": "1"})
    assert len({digest, content_digest({"a": "2", "b": "1"}), content_digest({"a": "1"})}) == 3
