"""Copying an artifact to a folder of the user's: whole, verified, and continued where it was interrupted.

A file appears under its name when all of it is there and its digest is right. The folder belongs to one artifact,
which the marker in it names; nothing in it that is not the artifact's is touched, and no link in it is followed.
"""

import json
import os
from pathlib import Path

from infra.commits import Commit
from infra.digests import file_sha256
from infra.errors import RequestError
from infra.fingerprint import canonical_json
from infra.manifest import FileEntry, Manifest
from infra.objects import NotFoundError, Objects, StoreError
from infra.staging import ArtifactMissingError, Progress, counter

MARKER = ".forgetting-artifact.json"
PART = ".forgetting-part"


def fetch(
    objects: Objects, commit: Commit, manifest: Manifest, part: str, into: Path, progress: Progress | None = None
) -> tuple[int, int]:
    """Copy the files of an artifact, or of its sub-folder `part`, to `into`; (files copied, files kept).

    Aux files come too. Raises `RequestError` before anything is written when `into` holds anything else,
    `ArtifactMissingError`, and `StoreError` naming a file whose digest is not the expected one.
    """
    files = manifest.below(part)
    if not files:
        raise RequestError(f"{commit.uri} has no part {part!r}; see `artifacts show`")
    if {entry.path for entry in files} & {MARKER, PART}:
        raise StoreError(f"{commit.uri} is damaged: its manifest names {MARKER} or {PART}, which no step writes")
    source = f"{commit.artifact}/{part}" if part else commit.artifact
    try:
        into = into.expanduser().absolute()
        wanted = _check_target(into, files, {"artifact": source, "fingerprint": commit.fingerprint})
        advance = counter(sum(entry.bytes for entry in files), progress)
        advance(sum(entry.bytes for entry in files) - sum(entry.bytes for entry in wanted))
        temporary = into / PART
        for entry in wanted:
            temporary.unlink(missing_ok=True)
            key = f"{source}/{entry.path}"
            try:
                found = objects.download(key, entry.bytes, temporary, advance)
            except NotFoundError as error:
                raise ArtifactMissingError(
                    f"{objects.root}/{key} is missing; run the step that makes it again"
                ) from error
            if found != entry.sha256:
                temporary.unlink()
                raise StoreError(
                    f"{objects.root}/{key} is damaged: expected the SHA-256 {entry.sha256}, found {found};"
                    f" remove its commit with `forgetting artifacts rm {commit.fingerprint[:12]}` and run again"
                )
            target = into / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
        temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {into}: {error}; check permissions and free space") from error
    return len(wanted), len(files) - len(wanted)


def _check_target(into: Path, files: list[FileEntry], identity: dict[str, str]) -> list[FileEntry]:
    """The files that are still to be copied; marks the folder as the artifact's."""
    if into.exists() and not into.is_dir():
        raise RequestError(f"{into} is a file; name a new or empty folder")
    ours = _marker(into) == identity
    expected = {entry.path: entry for entry in files}
    right, foreign = set(), []
    for path in _walk(into):
        name = path.relative_to(into).as_posix()
        if ours and name in (MARKER, PART):
            continue
        if path.is_symlink() or name not in expected:
            foreign.append(name)
        elif path.stat().st_size == expected[name].bytes and file_sha256(path) == expected[name].sha256:
            right.add(name)
        elif not ours:
            foreign.append(name)
    if foreign:
        listed = ", ".join(sorted(foreign)[:5]) + (", …" if len(foreign) > 5 else "")
        raise RequestError(
            f"{into} holds {len(foreign)} files that are not this artifact's ({listed});"
            " name a new or empty folder, or remove them"
        )
    into.mkdir(parents=True, exist_ok=True)
    (into / MARKER).write_bytes(canonical_json(identity))
    return [entry for entry in files if entry.path not in right]


def _marker(into: Path) -> object:
    marker = into / MARKER
    if marker.is_symlink() or not marker.is_file():
        return None
    try:
        return json.loads(marker.read_bytes())
    except ValueError:
        return None


def _walk(folder: Path) -> list[Path]:
    """All files and links below `folder`; links to folders are not followed."""
    found = []
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        found += [Path(top, name) for name in (*names, *links)]
    return found
