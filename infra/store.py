"""The store: artifacts, the commits that make them visible, and what runs and recipes point at.

```
v1/data/{step}/{attempt-uuid}/…           files, then manifest.json
v1/commits/{step}/{fingerprint}.json      the marker that the step is done; the first writer wins
v1/history/{step}/{fingerprint}/{uuid}.json  a commit that was replaced, by its artifact's uuid
v1/runs/{flow-run}.json                   which commits a flow run used
v1/heads/{recipe}.json                    advisory: what the recipe's last completed run used
```

Artifacts are immutable and nothing is visible before its commit. "Not found" is the only miss: whatever else goes
wrong is a `StoreError`, or a broken store would look like an empty one and everything would run again.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.commits import DATA, Commit, decode, encode
from infra.digests import DigestCache
from infra.folder_objects import FolderObjects
from infra.manifest import MANIFEST, Artifact, FileEntry, Manifest, files_of, role_of
from infra.objects import NotFoundError, Objects, Stored, StoreError, in_order, is_safe
from infra.sealed import seal, unseal
from infra.staging import ArtifactMissingError, Progress, counter, stage_download, verify
from infra.urls import open_objects

READERS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=\[\]-]*")


def open_store(url: str) -> "Store":
    """The store at a folder path, a `file://` URL or `s3://bucket/prefix`; see `urls.open_objects`."""
    return Store(open_objects(url))


class Store:
    """Everything that is kept, in a folder or in a bucket. Safe to use from several threads."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        """Where everything is, for those that keep something else there."""
        self.root = objects.root

    def publish(self, step: str, folder: Path, progress: Progress | None = None) -> Artifact:
        """Copy every file of `folder` into a new artifact of `step`, with bounded memory; the manifest comes last.

        `progress(done, total)` hears bytes. Nobody finds the artifact before it is committed. Raises `StoreError`.
        """
        uri = f"{DATA}{_name(step)}/{uuid.uuid4()}"
        paths = files_of(folder)
        advance = counter(sum((folder / path).stat().st_size for path in paths), progress)
        files = []
        for path in paths:
            sha256, size = self.objects.upload(f"{uri}/{path}", folder / path, advance)
            files.append(FileEntry(path=path, bytes=size, sha256=sha256, role=role_of(path)))
        manifest = Manifest(files=files)
        if not self.objects.create(f"{uri}/{MANIFEST}", manifest.to_json()):
            raise StoreError(f"{self.root}/{uri} exists already although its name is random; run again")
        return Artifact(f"{self.root}/{uri}", tuple(files))

    def artifact(self, uri: str) -> Artifact:
        """The published artifact whose folder is `uri`. Raises `ArtifactMissingError` and `StoreError`."""
        path, _ = self._split(uri)
        return Artifact(f"{self.root}/{path}", tuple(self._manifest(path).files))

    def exists(self, uri: str) -> bool:
        """Whether the artifact that `uri` is, or is a part of, has its manifest. Raises `StoreError`."""
        try:
            self._manifest(self._split(uri)[0])
        except ArtifactMissingError:
            return False
        return True

    def stage(
        self,
        uri: str,
        digest: str,
        into: Path,
        cache: DigestCache | None = None,
        *,
        aux: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """A local folder with the files of an artifact or of a sub-folder of it, all verified.

        A folder store hands out its own folder: do not write there. From S3 the files are downloaded to
        `into/{digest}` and used again next time. `cache` remembers what was verified. The files are those that
        `digest` covers; with `aux` the others too. Raises `ArtifactMissingError`, and `StoreError` naming a file
        whose digest is not the expected one.
        """
        path, part = self._split(uri)
        files = self._manifest(path).below(part)
        artifact = Artifact(f"{self.root}/{path}", tuple(files))
        if artifact.digest != digest:
            raise StoreError(
                f"{uri} has the content digest {artifact.digest}, expected {digest};"
                " it was replaced or its manifest was changed: delete its commit to let the step run again"
            )
        wanted = [entry for entry in files if aux or entry.role == "identity"]
        source = f"{path}/{part}" if part else path
        if isinstance(self.objects, FolderObjects):
            folder = self.objects.path(source)
            verify(folder, wanted, cache)
            return folder
        # aux files may differ between artifacts of the same content
        name = f"{digest}-{path.rsplit('/', 1)[1]}" if aux else digest
        return stage_download(self.objects, source, wanted, into / name, cache, progress)

    def read_file(self, uri: str, name: str) -> bytes:
        """One small file of an artifact, verified; auxiliary or not.

        Raises `ArtifactMissingError` when the artifact is gone or has no such file, and `StoreError`.
        """
        path, part = self._split(uri)
        entry = next((entry for entry in self._manifest(path).below(part) if entry.path == name), None)
        key = f"{uri.removeprefix(f'{self.root}/')}/{name}"
        if entry is None:
            raise ArtifactMissingError(f"{self.root}/{key} is not in the artifact's manifest")
        try:
            data = self.objects.read(key)
        except NotFoundError as error:
            raise ArtifactMissingError(f"{self.root}/{key} is missing; run the step that makes it again") from error
        if (found := hashlib.sha256(data).hexdigest()) != entry.sha256:
            raise StoreError(f"{self.root}/{key} is damaged: expected the SHA-256 {entry.sha256}, found {found}")
        return data

    def commit(self, record: Commit) -> Commit:
        """Make `record` the commit of its step and fingerprint, unless there is one: then that one, `adopted`.

        Raises `ArtifactMissingError` when its artifact is not published here, and `StoreError`.
        """
        self._manifest(record.artifact)
        key = _commit_key(record.step, record.fingerprint)
        record = record.model_copy(update={"root": self.root, "adopted": False})
        if self.objects.create(key, encode(record)):
            return record
        winner = self.lookup(record.step, record.fingerprint)
        if winner is None:
            raise StoreError(f"{self.root}/{key} was deleted while it was being committed; run again")
        return winner.model_copy(update={"adopted": True})

    def replace(self, old: Commit, record: Commit) -> Commit:
        """Make `record` the commit in place of `old`, which goes to the history: after a refresh or an eviction.

        There is a commit at every moment. When someone else replaced `old` first, theirs stays and is returned,
        `adopted`. Raises as `commit` does.
        """
        self._manifest(record.artifact)
        key = _commit_key(record.step, record.fingerprint)
        record = record.model_copy(update={"root": self.root, "adopted": False})
        try:
            data, version = self.objects.read_version(key)
        except NotFoundError:  # deleted meanwhile
            return self.commit(record)
        current = decode(data, self.root, key)
        if current.artifact == old.artifact:
            attempt = old.artifact.rsplit("/", 1)[1]
            self.objects.create(f"v1/history/{_name(old.step)}/{old.fingerprint}/{attempt}.json", data)
            if self.objects.swap(key, encode(record), version):
                return record
            return self.commit(record)  # finds the winner, or a key that is free again
        return current.model_copy(update={"adopted": True})

    def lookup(self, step: str, fingerprint: str) -> Commit | None:
        """The commit of `step` with this fingerprint; None only if there is none. Raises `StoreError`."""
        key = _commit_key(step, fingerprint)
        try:
            return decode(self.objects.read(key), self.root, key)
        except NotFoundError:
            return None

    def commits(self, step: str) -> Iterator[Commit]:
        """All commits of `step`, by fingerprint. Raises `StoreError`."""
        for stored in self.objects.find(f"v1/commits/{_name(step)}"):
            fingerprint = stored.key.rsplit("/", 1)[1].removesuffix(".json")
            commit = self.lookup(step, fingerprint)
            if commit is not None:  # not deleted since it was listed
                yield commit

    def newest_commits(self, step: str, limit: int) -> tuple[list[Commit], bool]:
        """The `limit` commits of `step` that were written last, newest first, and whether there are no others.

        Reads no others. Raises `StoreError`.
        """
        newest, count = self.objects.newest(f"v1/commits/{_name(step)}", limit)

        def read(stored: Stored) -> Commit | None:
            return self.lookup(step, stored.key.rsplit("/", 1)[1].removesuffix(".json"))

        found = in_order(read, newest, READERS)
        # None: deleted since it was listed
        return [commit for commit in found if commit is not None], len(newest) == count

    def record_run(self, flow_run_id: str, data: dict[str, Any]) -> None:
        """Store which commits a flow run used, replacing what the same run stored before."""
        self.objects.overwrite(f"v1/runs/{_name(flow_run_id)}.json", seal(data))

    def read_run(self, flow_run_id: str) -> dict[str, Any] | None:
        """What `record_run` stored, or None."""
        return self._read_json(f"v1/runs/{_name(flow_run_id)}.json")

    def newest_runs(self, limit: int) -> Iterator[dict[str, Any]]:
        """What `record_run` stored for the `limit` runs that were written last, newest first; reads no others."""
        newest, _ = self.objects.newest("v1/runs", limit)
        for data in in_order(self._read_json, (stored.key for stored in newest), READERS):
            if data is not None:  # not deleted since it was listed
                yield data

    def write_head(self, recipe: str, data: dict[str, Any]) -> None:
        """Store what the recipe's last completed run used. Advisory: the last writer wins."""
        self.objects.overwrite(f"v1/heads/{_name(recipe)}.json", seal(data))

    def read_head(self, recipe: str) -> dict[str, Any] | None:
        """What `write_head` stored, or None."""
        return self._read_json(f"v1/heads/{_name(recipe)}.json")

    def _read_json(self, key: str) -> dict[str, Any] | None:
        try:
            return unseal(self.objects.read(key))
        except NotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self.root}/{key} is damaged: {error}; delete it") from error

    def _manifest(self, path: str) -> Manifest:
        key = f"{path}/{MANIFEST}"
        try:
            return Manifest.parse(self.objects.read(key), f"{self.root}/{key}")
        except NotFoundError as error:
            raise ArtifactMissingError(
                f"{self.root}/{path} is not in the store (it was deleted, or never finished);"
                " run the step that makes it again"
            ) from error

    def _split(self, uri: str) -> tuple[str, str]:
        """(artifact folder relative to the root, sub-folder in it or empty)."""
        key = uri.removeprefix(f"{self.root}/")
        names = key.split("/")
        if not key.startswith(DATA) or len(names) < 4 or not is_safe(key):
            raise StoreError(f"{uri} is no artifact of the store {self.root}; expected {self.root}/{DATA}STEP/UUID")
        return "/".join(names[:4]), "/".join(names[4:])


def _commit_key(step: str, fingerprint: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise ValueError(f"{fingerprint!r} is not a fingerprint: expected 64 hexadecimal digits")
    return f"v1/commits/{_name(step)}/{fingerprint}.json"


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a name in the store; expected letters, digits and _ . , = [ ] -")
    return name
