"""Raw inputs in S3 (models, data files): what is there, and a local copy of it.

Unlike artifacts they may change and carry no manifest: names, sizes and ETags tell one version from another without
fetching, and the content digest is taken from the local bytes, as for any raw file.
"""

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from infra.digests import DigestCache
from infra.objects import NotFoundError, Objects, Stored, StoreError, check_key
from infra.staging import Progress, appear, counter
from infra.urls import open_objects


class NothingThereError(StoreError):
    """The store answers, and has no object at this address."""


def describe_folder(url: str) -> list[Stored]:
    """The objects of the folder `url` with keys relative to it, or the one object `url` with its name as the key.

    Raises `StoreError`, also when there is nothing or when a key could not be a local file.
    """
    _, base, listing = _describe(url)
    return [replace(stored, key=stored.key.removeprefix(base)) for stored in listing]


def stage_folder(url: str, into: Path, cache: DigestCache | None = None, progress: Progress | None = None) -> Path:
    """Copy the folder, or the one object, at `url` to the new folder `into`, which appears when it is whole.

    Returns `into`, or the file in it for a single object. An `into` that exists is used as it is: name it by what
    `describe_folder` says. Streams with bounded memory; `cache` learns the digests. Raises `StoreError`.
    """
    objects, base, listing = _describe(url)
    advance = counter(sum(stored.bytes for stored in listing), progress)

    def fill(folder: Path) -> dict[str, str]:
        digests = {}
        for stored in listing:
            path = stored.key.removeprefix(base)
            try:
                digests[path] = objects.download(stored.key, stored.bytes, folder / path, advance)
            except NotFoundError as error:
                raise StoreError(f"{url}: {path} was deleted while it was read; run again") from error
        if _describe(url)[2] != listing:
            raise StoreError(f"{url} changed while it was read; run again when nothing writes to it")
        return digests

    if not into.exists():
        appear(into, fill, cache)
    return into if base else into / listing[0].key


def _describe(url: str) -> tuple[Objects, str, list[Stored]]:
    """The objects beside `url`, the prefix of the keys in it (empty for a single object), and those objects."""
    parent, _, name = url.rstrip("/").rpartition("/")
    if not urlsplit(parent).netloc or not name:
        raise StoreError(f"{url}: expected s3://bucket/folder or s3://bucket/…/file")
    objects = open_objects(parent)
    listing = list(objects.find(name))
    if not listing:
        raise NothingThereError(f"{url}: there is nothing at this address; correct it")
    try:
        for stored in listing:
            check_key(stored.key)
    except ValueError as error:
        raise StoreError(f"{url}: an object cannot become a local file: {error}; rename it") from None
    return objects, "" if listing[0].key == name else f"{name}/", listing
