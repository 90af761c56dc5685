"""What a run starts from: raw files and models, wherever they are, as local paths with a content digest.

Planning must not fetch anything, so a source that is not on this machine yet is `Unresolved` there, with the
reason.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.digests import DigestCache, content_digest
from infra.errors import SourceError
from infra.fingerprint import canonical_json
from infra.raw_inputs import NothingThereError, describe_folder, stage_folder
from infra.staging import appear

Kind = Literal["data", "model"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
SelectFiles = Callable[[Path], list[Path]]


@dataclass(frozen=True)
class Ref:
    """Content at some address: an artifact, a part of one, raw files or a model."""

    uri: str
    digest: str
    kind: Kind = "data"
    local: tuple[Path, ...] = ()
    """Where it is on this machine already; empty for what has to be staged from the store."""
    files: tuple[tuple[str, str], ...] = ()
    """(address, sha256) of each raw file, for those who check it by hand; empty for an artifact."""


@dataclass(frozen=True)
class Unresolved:
    """A source whose content is not known without fetching it."""

    reason: str


class Sources:
    """Resolves the addresses of a recipe; fetches what is remote only when `fetch` is set."""

    def __init__(self, digests: DigestCache, raw_dir: Path, *, fetch: bool) -> None:
        self._digests = digests
        self._raw_dir = raw_dir
        self._fetch = fetch

    def files(self, urls: Sequence[str], *, field: str) -> Ref | Unresolved:
        """Data files in the order given; identity is their base names and contents.

        Raises `SourceError` naming `field` for a missing local file.
        """
        paths = []
        for url in urls:
            found = self._remote(url, field) if "://" in url else Path(url)
            if isinstance(found, Unresolved):
                return found
            if not found.is_file():
                raise SourceError(f"{field}: no such file: {url}; expected a JSONL, JSON or Parquet file")
            paths.append(found.resolve())
        names = {f"{index:04d}/{path.name}": self._digests.sha256(path) for index, path in enumerate(paths)}
        addresses = [url if "://" in url else str(path) for url, path in zip(urls, paths, strict=True)]
        files = tuple(zip(addresses, names.values(), strict=True))
        return Ref(", ".join(urls), content_digest(names), "data", tuple(paths), files)

    def folder(self, url: str, select: SelectFiles, *, kind: Kind, field: str) -> Ref | Unresolved:
        """A local or `s3://` folder; identity is the contents of the files that `select` picks."""
        found = self._remote(url, field) if "://" in url else Path(url)
        if isinstance(found, Unresolved):
            return found
        if not found.is_dir():
            raise SourceError(f"{field}: no such folder: {url}")
        return self._folder_ref(url, found.resolve(), select, kind)

    def model(self, path: str, revision: str | None, select: SelectFiles, *, field: str) -> Ref | Unresolved:
        """A model folder, or with `revision` a hub id; identity is the contents of the files `select` picks."""
        if revision is None:
            if not path.startswith("s3://") and not Path(path).is_dir():
                raise SourceError(
                    f"{field}.path: no such folder: {path}; give a local folder, an s3:// folder, "
                    f"or a hub id together with {field}.revision"
                )
            return self.folder(path, select, kind="model", field=f"{field}.path")
        if path.startswith("s3://") or Path(path).is_dir():
            raise SourceError(
                f"{field}.revision: {revision!r} is set, but {path} is a folder, which has none; "
                f"add --set {field}.revision=null"
            )
        snapshot = self._hub_snapshot(path, revision, field)
        if isinstance(snapshot, Unresolved):
            return snapshot
        return self._folder_ref(f"hf://{path}@{snapshot.name}", snapshot, select, "model")

    def hub_data(self, hub: str, revision: str, split: str, name: str | None, *, field: str) -> Ref | Unresolved:
        """A hub data set as one Parquet file; identity is the commit that `revision` resolves to."""
        if not self._fetch:
            return Unresolved(f"{field}: needs data set {hub} at {revision} from the hub")
        commit = revision if _COMMIT.fullmatch(revision) else self._hub_commit(hub, revision, field)
        identity = {"hub": hub, "commit": commit, "split": split, "name": name}
        digest = hashlib.sha256(canonical_json(identity)).hexdigest()
        file = f"{hub.replace('/', '--')}.parquet"

        def download(folder: Path) -> dict[str, str]:
            from datasets import load_dataset

            load_dataset(hub, name, revision=commit, split=split).to_parquet(folder / file)
            return {}

        target = self._raw_dir / digest
        if not target.exists():
            try:
                appear(target, download, None)
            except Exception as error:  # the hub's client, its HTTP library and the reader all raise their own
                raise SourceError(f"{field}: data set {hub} at {commit} cannot be loaded: {error}") from error
        return Ref(f"hf://datasets/{hub}@{commit}", digest, "data", (target / file,))

    def _hub_commit(self, hub: str, revision: str, field: str) -> str:
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(hub, revision=revision).sha
        except Exception as error:  # the hub's client and its HTTP library raise their own
            raise SourceError(f"{field}: data set {hub} at {revision} cannot be found: {error}") from error
        if commit is None:
            raise SourceError(f"{field}: the hub names no commit for {hub} at {revision}; pin a commit")
        return commit

    def _folder_ref(self, url: str, folder: Path, select: SelectFiles, kind: Kind) -> Ref:
        names = {path.relative_to(folder).as_posix(): self._digests.sha256(path) for path in select(folder)}
        base = url if "://" in url else str(folder)
        files = tuple((f"{base.rstrip('/')}/{name}", digest) for name, digest in names.items())
        return Ref(url, content_digest(names), kind, (folder,), files)

    def _remote(self, url: str, field: str) -> Path | Unresolved:
        """The local copy of an object or folder; its listing (names, sizes, ETags) names the copy's folder."""
        if not url.startswith("s3://"):
            raise SourceError(f"{field}: {url}: expected a local path or an s3:// URL; download it first")
        try:
            listing = describe_folder(url)
        except NothingThereError as error:
            raise SourceError(f"{field}: {error}") from error
        versions = [[url, item.key, item.bytes, item.etag] for item in listing]
        target = self._raw_dir / hashlib.sha256(canonical_json(versions)).hexdigest()
        if not self._fetch and not target.exists():
            return Unresolved(f"{url} has to be fetched first")
        return stage_folder(url, target)

    def _hub_snapshot(self, hub: str, revision: str, field: str) -> Path | Unresolved:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        patterns = ["*.safetensors*", "*.json", "*.jinja", "*.model", "*.txt", "*.py"]
        try:
            snapshot = snapshot_download(
                hub, revision=revision, allow_patterns=patterns, local_files_only=not self._fetch
            )
        except Exception as error:  # the hub's client and its HTTP library raise their own
            if isinstance(error, LocalEntryNotFoundError) and not self._fetch:
                return Unresolved(f"{field}: needs model {hub} at {revision} from the hub")
            raise SourceError(f"{field}: {hub} at {revision} cannot be fetched from the hub: {error}") from error
        folder = Path(snapshot)
        # a cache that was only asked for the tokenizer has the folder, too
        if not self._fetch and not any(folder.glob("*.safetensors")):
            return Unresolved(f"{field}: needs the weights of {hub} at {revision} from the hub")
        return folder
