"""Is an artifact still what its manifest says? Every byte is read again; nothing is kept on this machine."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from infra.commits import Commit
from infra.manifest import MANIFEST, Artifact, FileEntry, Manifest
from infra.objects import Advance, NotFoundError, Objects, Stored, in_order

WORKERS = min(8, os.cpu_count() or 1)
MISSING = "nothing"


@dataclass(frozen=True)
class Fault:
    """One file that is not what it should be."""

    uri: str
    """Of the artifact."""
    file: str
    """Relative to the artifact; empty where the whole artifact is meant."""
    expected: str
    found: str


def read_manifest(objects: Objects, commit: Commit) -> Manifest | None:
    """The manifest of a commit's artifact, or None without one. Raises `StoreError`."""
    key = f"{commit.artifact}/{MANIFEST}"
    try:
        return Manifest.parse(objects.read(key), f"{objects.root}/{key}")
    except NotFoundError:
        return None


def verify_artifact(objects: Objects, commit: Commit, manifest: Manifest | None, advance: Advance) -> list[Fault]:
    """Hash every file of one artifact, several at a time; `advance` hears bytes.

    Finds files that are missing, changed or too many, and a manifest that does not fit the commit. Raises
    `StoreError` when the store cannot be read.
    """
    if manifest is None:
        return [Fault(commit.uri, MANIFEST, "the artifact's manifest", MISSING)]
    artifact = Artifact(commit.uri, tuple(manifest.files))
    digests = [("", commit.digest, artifact.digest)]
    for output in commit.outputs.values():
        if output.path:
            digests.append((output.path, output.digest, _part_digest(artifact, output.path)))
    faults = [Fault(commit.uri, *triple) for triple in digests if triple[1] != triple[2]]

    stored = {item.key.removeprefix(f"{commit.artifact}/"): item for item in objects.find(commit.artifact)}
    known = {entry.path for entry in manifest.files} | {MANIFEST}
    faults += [Fault(commit.uri, path, MISSING, "a file") for path in stored if path not in known]

    def check(entry: FileEntry) -> Fault | None:
        found = _found(objects, f"{commit.artifact}/{entry.path}", entry, stored.get(entry.path), advance)
        return None if found == entry.sha256 else Fault(commit.uri, entry.path, entry.sha256, found)

    checked: Iterable[Fault | None] = in_order(check, manifest.files, WORKERS)
    return [*faults, *(fault for fault in checked if fault is not None)]


def _found(objects: Objects, key: str, entry: FileEntry, stored: Stored | None, advance: Advance) -> str:
    """The file's SHA-256, or what is wrong with it that is seen without reading it."""
    if stored is None or stored.bytes != entry.bytes:
        advance(entry.bytes)
        return MISSING if stored is None else f"{stored.bytes} bytes instead of {entry.bytes}"
    digest = hashlib.sha256()
    try:
        for chunk in objects.stream(key, entry.bytes):
            digest.update(chunk)
            advance(len(chunk))
    except NotFoundError:  # deleted since it was listed
        return MISSING
    return digest.hexdigest()


def _part_digest(artifact: Artifact, path: str) -> str:
    try:
        return artifact.part(path).digest
    except KeyError:
        return MISSING
