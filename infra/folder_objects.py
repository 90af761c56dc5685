"""Objects in a local or shared folder.

The conditional create is a temporary file, fsync and `os.link`: a link either makes the name or fails because it
exists, also between machines (fsspec's local exclusive create checks first and writes afterwards). What compares
before it writes does so under one `flock` for the whole folder: swaps are rare and short.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from heapq import nlargest
from operator import itemgetter
from pathlib import Path

from infra.objects import Advance, NotFoundError, Stored, StoreError, check_key

CHUNK_BYTES = 4 * 2**20


class FolderObjects:
    """`Objects` in the folder `root`, which appears with the first write.

    Unfinished writes lie in `.tmp/`; `.lock` is what swaps lock.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root.expanduser().absolute()
        self.root = str(self.folder)

    def path(self, key: str) -> Path:
        """Where the object `key` is or would be."""
        return self.folder / check_key(key)

    def read(self, key: str) -> bytes:
        """As `Objects.read`."""
        path = self.path(key)
        with _explained(path, "read"):
            return path.read_bytes()

    def read_version(self, key: str) -> tuple[bytes, str]:
        """As `Objects.read_version`; the version is the SHA-256 of the bytes."""
        data = self.read(key)
        return data, hashlib.sha256(data).hexdigest()

    def create(self, key: str, data: bytes) -> bool:
        """As `Objects.create`."""
        path = self.path(key)
        with _explained(path, "write"), self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return path.read_bytes() == data
            _sync_folder(path.parent)
        return True

    def overwrite(self, key: str, data: bytes) -> None:
        """As `Objects.overwrite`."""
        path = self.path(key)
        with _explained(path, "write"), self._temporary(path, data) as temporary:
            temporary.replace(path)
            _sync_folder(path.parent)

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """As `Objects.swap`."""
        path = self.path(key)
        with _explained(path, "write"), self._locked():
            try:
                _, current = self.read_version(key)
            except NotFoundError:
                return False
            if current != version:
                return False
            self.overwrite(key, data)
        return True

    def delete(self, key: str) -> None:
        """As `Objects.delete`."""
        path = self.path(key)
        with _explained(path, "delete"), self._locked():
            path.unlink(missing_ok=True)

    def delete_folder(self, prefix: str) -> None:
        """As `Objects.delete_folder`; its folders go too."""
        path = self.path(prefix)
        with _explained(path, "delete"), suppress(FileNotFoundError):
            shutil.rmtree(path)

    def find(self, prefix: str) -> Iterator[Stored]:
        """As `Objects.find`."""
        for key, stat in sorted(self._list(prefix), key=itemgetter(0)):
            yield _stored(key, stat)

    def newest(self, prefix: str, limit: int) -> tuple[list[Stored], int]:
        """As `Objects.newest`."""
        found = self._list(prefix)
        return [_stored(*item) for item in nlargest(limit, found, key=lambda item: item[1].st_mtime_ns)], len(found)

    def upload(self, key: str, source: Path, advance: Advance) -> tuple[str, int]:
        """As `Objects.upload`."""
        path = self.path(key)
        with _explained(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            return _copy(source, path, None, advance)

    def download(self, key: str, size: int, target: Path, advance: Advance) -> str:
        """As `Objects.download`."""
        path = self.path(key)
        with _explained(path, "read"):
            target.parent.mkdir(parents=True, exist_ok=True)
            return _copy(path, target, size, advance)[0]

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """As `Objects.stream`."""
        path = self.path(key)
        with _explained(path, "read"), path.open("rb") as file:
            while size and (chunk := file.read(min(CHUNK_BYTES, size))):
                size -= len(chunk)
                yield chunk

    def _list(self, prefix: str) -> list[tuple[str, os.stat_result]]:
        top = self.path(prefix)
        with _explained(top, "list"):
            return [(prefix, top.stat())] if top.is_file() else list(_below(str(top), prefix))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, also by the death of this process
            yield

    @contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[Path]:
        # beside `v1`, so that a listing never meets one; not `tempfile`, whose files only their owner may read
        temporary = self.folder / ".tmp" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _copy(source: Path, target: Path, size: int | None, advance: Advance) -> tuple[str, int]:
    digest, done = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK_BYTES if size is None else min(CHUNK_BYTES, size - done)):
            writer.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            advance(len(chunk))
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest(), done


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _below(folder: str, key: str) -> Iterator[tuple[str, os.stat_result]]:
    """The objects below the folder `key`; as plain as can be, because there may be a hundred thousand."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = f"{key}/{entry.name}"
            if not entry.is_dir():
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # deleted since it was listed
                    continue
                yield name, stat
            elif not entry.is_symlink():
                yield from _below(entry.path, name)


def _stored(key: str, stat: os.stat_result) -> Stored:
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return Stored(key, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", modified)


_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or choose another store",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another store",
    errno.EACCES: "check who may read and write this folder",
    errno.EROFS: "the file system is read-only; choose another store",
    errno.EPERM: "check permissions, and that the file system has hard links; or use an s3:// store",
    errno.EOPNOTSUPP: "the file system has no hard links, which the store needs; use another folder or s3://",
    errno.ENOTDIR: "a part of this path is a file; choose another folder for the store",
    errno.EISDIR: "there is a folder where the store keeps a file; choose another folder for the store",
}


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and doing == "read":
            raise NotFoundError(str(path)) from error
        advice = _ADVICE.get(error.errno or 0, "check the disk or the network share, then run again")
        raise StoreError(f"cannot {doing} {path}: {error}; {advice}") from error
