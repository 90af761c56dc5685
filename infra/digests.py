"""Content digests: of a file, of a set of files, and a memory of those already computed.

Raw data and base models are gigabytes that rarely change; hashing them on every `plan` would be felt.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from infra.fingerprint import canonical_json
from infra.objects import StoreError

CHUNK_BYTES = 4 * 2**20
SETTLED_NS = 2_000_000_000
"""A file changed more recently than this may change again within the same tick of its file system's clock."""

_TABLE = """create table if not exists digests
(path text primary key, bytes integer, mtime_ns integer, inode integer, sha256 text) without rowid"""
_FIND = "select sha256 from digests where path = ? and bytes = ? and mtime_ns = ? and inode = ?"
_KEEP = "insert or replace into digests values (?, ?, ?, ?, ?)"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in chunks. Raises `OSError`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_digest(entries: Mapping[str, str]) -> str:
    """Digest of a set of files: SHA-256 (hex) over the canonical JSON of `{relative path: sha256}`."""
    return hashlib.sha256(canonical_json(dict(entries))).hexdigest()


class DigestCache:
    """Remembers the SHA-256 of local files by (path, bytes, mtime, inode) in one SQLite file.

    Safe with several threads and processes. A read-only cache writes nothing, not even its own file: what it does
    not know, it computes and forgets.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._database() as database:
                database.execute(_TABLE)

    def sha256(self, path: Path) -> str:
        """SHA-256 (hex) of the file's bytes, remembered or computed.

        Raises `OSError` for the file and `StoreError` for a damaged cache or a file that changes while it is read.
        """
        name = str(path.resolve())
        before = path.stat()
        known = self._find(name, before)
        if known is not None:
            return known
        found = file_sha256(path)
        after = path.stat()
        if _key(after) != _key(before):
            raise StoreError(f"{path} changed while it was read; run again when nothing writes to it")
        if time.time_ns() - after.st_mtime_ns > SETTLED_NS:
            self._keep(name, after, found)
        return found

    def remember(self, path: Path, sha256: str) -> None:
        """Learn the digest of a file that only the caller writes, and has written. Raises `OSError`."""
        self._keep(str(path.resolve()), path.stat(), sha256)

    def _find(self, name: str, stat: os.stat_result) -> str | None:
        if self.read_only and not self.path.exists():
            return None
        with self._database() as database:
            row = database.execute(_FIND, (name, *_key(stat))).fetchone()
        return str(row[0]) if row else None

    def _keep(self, name: str, stat: os.stat_result, sha256: str) -> None:
        if not self.read_only:
            with self._database() as database:
                database.execute(_KEEP, (name, *_key(stat), sha256))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        url = f"{self.path.resolve().as_uri()}?mode={'ro' if self.read_only else 'rwc'}"
        try:
            with closing(sqlite3.connect(url, uri=True, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise StoreError(
                f"the memory of file digests {self.path} cannot be used ({error}); delete it, it only saves time"
            ) from error


def _key(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
