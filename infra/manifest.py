"""What an artifact consists of: its files, their digests and roles, and the digest of the whole and of parts.

`identity` files are the content; `aux` files (everything below `aux/`, and `AUX_FILES`: statistics, times, logs,
pages for people) are stored and verified but do not move the digest, or they would defeat the early cut-off.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.digests import content_digest
from infra.fingerprint import canonical_json
from infra.objects import StoreError, check_key

MANIFEST = "manifest.json"
AUX_FILES = ("README.md", "report.html", "comparison.html")
"""For people, and about the run as well: at the top of an artifact, not of its content."""
Role = Literal["identity", "aux"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, AfterValidator(check_key)]


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath
    """Relative to the artifact's folder, with `/`."""
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    role: Role


class Manifest(BaseModel):
    """The files of an artifact, sorted by path."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(1, alias="schema")
    files: list[FileEntry]

    @model_validator(mode="after")
    def _each_path_once(self) -> "Manifest":
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("paths are not sorted or appear twice")
        if clash := clashing(paths):
            raise ValueError(f"{clash!a} cannot be beside the others on every file system")
        return self

    @classmethod
    def parse(cls, data: bytes, url: str) -> "Manifest":
        """The manifest in `data`, read from `url`. Raises `StoreError` for anything but a sound one."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise StoreError(
                f"{url} is damaged or was written by a newer version: {error}; delete its artifact, or upgrade"
            ) from error

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))

    def below(self, part: str) -> list[FileEntry]:
        """The entries of the sub-folder `part` with paths relative to it; of the whole artifact when empty."""
        prefix = f"{part}/" if part else ""
        return [
            entry.model_copy(update={"path": entry.path.removeprefix(prefix)})
            for entry in self.files
            if entry.path.startswith(prefix)
        ]


@dataclass(frozen=True)
class Part:
    """A sub-folder of an artifact, as an input of later steps."""

    path: str
    """Relative to the artifact's folder."""
    uri: str
    digest: str
    bytes: int
    """Of its identity files."""


@dataclass(frozen=True)
class Artifact:
    """A published folder."""

    uri: str
    """Absolute URL or path of the folder."""
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """Digest of the identity files: what the fingerprints of later steps contain."""
        return identity_digest(self.files)

    @property
    def bytes(self) -> int:
        """Size of the identity files."""
        return identity_bytes(self.files)

    def part(self, path: str) -> Part:
        """The sub-folder `path`. Raises `KeyError` when it holds no identity file."""
        entries = Manifest(files=list(self.files)).below(check_key(path))
        if not any(entry.role == "identity" for entry in entries):
            raise KeyError(f"{self.uri} has no identity file below {path}/")
        return Part(path, f"{self.uri}/{path}", identity_digest(entries), identity_bytes(entries))


def identity_digest(entries: "tuple[FileEntry, ...] | list[FileEntry]") -> str:
    """Content digest of the identity files among `entries`."""
    return content_digest({entry.path: entry.sha256 for entry in entries if entry.role == "identity"})


def identity_bytes(entries: "tuple[FileEntry, ...] | list[FileEntry]") -> int:
    """Total size of the identity files among `entries`, in bytes."""
    return sum(entry.bytes for entry in entries if entry.role == "identity")


def role_of(path: str) -> Role:
    """`aux` for `AUX_FILES` and everything below `aux/`."""
    return "aux" if path in AUX_FILES or path.startswith("aux/") else "identity"


def clashing(paths: Sequence[str]) -> str | None:
    """A path that is a folder too, or that some file systems take for another one (case, accents); or None."""
    seen: dict[str, str] = {}
    folders = {path[:end] for path in paths for end, char in enumerate(path) if char == "/"}
    for path in paths:
        same = unicodedata.normalize("NFC", path).casefold()
        if path in folders or seen.setdefault(same, path) != path:
            return path
    return None


def files_of(folder: Path) -> list[str]:
    """Relative paths of all files below `folder`, sorted; links to files count as files.

    Raises `StoreError` for what could not be stored faithfully: links to folders, sockets, broken links, names that
    are not portable, and a `manifest.json` at the top.
    """
    found = sorted(_walk(folder))
    for path in found:
        try:
            check_key(path)
        except ValueError as error:
            raise StoreError(f"{folder}: cannot store a file of this name: {error}; rename it") from None
        if not (folder / path).is_file():
            raise StoreError(f"{folder / path} is not a regular file; an artifact holds files only")
    if MANIFEST in found:
        raise StoreError(f"{folder / MANIFEST}: this name belongs to the store; rename the file")
    if clash := clashing(found):
        raise StoreError(f"{folder / clash}: some file systems take it for another file of the folder; rename it")
    return found


def _walk(folder: Path) -> Iterator[str]:
    for top, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if Path(top, name).is_symlink()]
        for name in (*names, *links):
            yield Path(top, name).relative_to(folder).as_posix()


def _raise(error: OSError) -> None:
    raise StoreError(f"cannot read {error.filename}: {error}") from error
