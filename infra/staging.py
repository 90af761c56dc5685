"""Bringing files to this machine: verified copies of artifacts, and folders of raw inputs in S3.

The core sees local paths only. A staged folder appears under its final name when it is whole, so a killed download
leaves nothing that looks finished.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.digests import DigestCache, file_sha256
from infra.manifest import FileEntry
from infra.objects import Advance, NotFoundError, Objects, StoreError

Progress = Callable[[int, int], None]
"""Hears (bytes done, bytes in all)."""


class ArtifactMissingError(StoreError):
    """The artifact, or one of its files, is not in the store (any more)."""


def counter(total: int, progress: Progress | None) -> Advance:
    """Sums what is transferred and tells `progress`."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return advance


def verify(folder: Path, files: Iterable[FileEntry], cache: DigestCache | None) -> None:
    """Compare `folder` with the manifest. Raises `ArtifactMissingError`, or `StoreError` naming a bad file."""
    for entry in files:
        path = folder / entry.path
        _refuse_links(folder, entry.path)
        try:
            found = cache.sha256(path) if cache else file_sha256(path)
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"{path} is missing; run the step that makes it again") from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        _compare(str(path), entry.sha256, found)


def _refuse_links(folder: Path, name: str) -> None:
    """An artifact has none; one that was put there would bring in what the store never held."""
    path = folder
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            raise StoreError(f"{path} is a link, and artifacts hold files only: it was put there; remove it")


def stage_download(
    objects: Objects,
    source: str,
    files: list[FileEntry],
    target: Path,
    cache: DigestCache | None,
    progress: Progress | None,
) -> Path:
    """Download `files` of the object folder `source` to the folder `target` and verify each while it streams.

    A `target` that is there already is verified and used. Raises `ArtifactMissingError` and `StoreError`.
    """
    if target.exists():
        verify(target, files, cache)
        return target
    advance = counter(sum(entry.bytes for entry in files), progress)

    def fill(folder: Path) -> dict[str, str]:
        for entry in files:
            key = f"{source}/{entry.path}"
            try:
                found = objects.download(key, entry.bytes, folder / entry.path, advance)
            except NotFoundError as error:
                raise ArtifactMissingError(
                    f"{objects.root}/{key} is missing; run the step that makes it again"
                ) from error
            _compare(f"{objects.root}/{key}", entry.sha256, found)
        return {entry.path: entry.sha256 for entry in files}

    appear(target, fill, cache)
    return target


def appear(target: Path, fill: Callable[[Path], dict[str, str]], cache: DigestCache | None) -> None:
    """Let `fill` write a temporary folder, then give it the name `target`; `cache` learns the digests it returns.

    Another process may do the same at the same time: the first one's folder stays.
    """
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        digests = fill(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error}; check permissions and free space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if cache is not None:
        for path, sha256 in digests.items():
            cache.remember(target / path, sha256)


def _compare(where: str, expected: str, found: str) -> None:
    if found != expected:
        raise StoreError(
            f"{where} is damaged: expected the SHA-256 {expected}, found {found};"
            " delete the folder it is in, and run again"
        )
