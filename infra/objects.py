"""What the store needs of a place that keeps objects, and how such a place fails.

A folder (`folder_objects.py`) and a bucket (`s3_objects.py`) offer these few operations and nothing else, so the
rest of the store is the same for both. Two failures are told apart everywhere: an object that is not there
(`NotFoundError`, the only cache miss) and everything else (`StoreError`, which stops the run).
"""

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

Advance = Callable[[int], None]
"""Told the number of bytes that were just transferred."""
Item = TypeVar("Item")
Result = TypeVar("Result")

PROBE = ".conditional-write"
"""In a bucket: what is written to see whether the server honours conditions; it stays."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|(^|/)[A-Za-z]:|[\ud800-\udfff]")


class StoreError(RuntimeError):
    """The store could not be read or written. The message says which object, why, and what to do."""


class UnavailableError(StoreError):
    """The store is overloaded or out of reach: trying again later may help."""


class NotFoundError(LookupError):
    """There is no object under this key."""


@dataclass(frozen=True)
class Stored:
    """One object of a listing."""

    key: str
    bytes: int
    etag: str
    """Changes when the object changes."""
    modified: datetime
    """When it was last written, by the clock of the place, with its time zone."""


class Objects(Protocol):
    """A place that keeps objects under keys such as `v1/commits/split/….json`.

    Every method raises `StoreError`; those that read raise `NotFoundError` too.
    """

    root: str
    """Absolute URL or path of the place, without a trailing slash."""

    def read(self, key: str) -> bytes:
        """The bytes of a small object."""

    def read_version(self, key: str) -> tuple[bytes, str]:
        """The bytes of a small object and their version, for `swap`."""

    def create(self, key: str, data: bytes) -> bool:
        """Write unless there is an object already, atomically; whether `key` now holds `data`.

        An object that holds exactly these bytes counts as ours: the response to the first of two attempts may have
        been lost. Data that must have one owner therefore carries something unique to its writer.
        """

    def overwrite(self, key: str, data: bytes) -> None:
        """Write, replacing what is there; a reader sees the old bytes or the new ones."""

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace the bytes that have this version, atomically; whether `key` now holds `data`.

        False when the object has changed or is gone. As with `create`, `data` must be unique to its writer; bytes
        that were there before may have the version that they had then.
        """

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is removed already."""

    def delete_folder(self, prefix: str) -> None:
        """Remove every object below the folder `prefix`, to which nobody writes any more."""

    def find(self, prefix: str) -> Iterator[Stored]:
        """The object `prefix` itself, or else those below the folder `prefix`; sorted by key."""

    def newest(self, prefix: str, limit: int) -> tuple[list[Stored], int]:
        """Of what `find` gives the `limit` that were written last, newest first; and how many there are of all."""

    def upload(self, key: str, source: Path, advance: Advance) -> tuple[str, int]:
        """Copy a local file to `key` with bounded memory; (SHA-256 hex, bytes) of what was sent."""

    def download(self, key: str, size: int, target: Path, advance: Advance) -> str:
        """Copy the first `size` bytes to a new local file with bounded memory; their SHA-256 (hex)."""

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """The first `size` bytes in chunks, with bounded memory."""


def is_safe(key: str) -> bool:
    """Whether `key` is a relative path that stays below where it is used, on any operating system."""
    return not _UNSAFE.search(key) and not any(part in ("", ".", "..") for part in key.split("/"))


def check_key(key: str) -> str:
    """`key` itself. Raises `ValueError` unless it `is_safe`."""
    if not is_safe(key):
        raise ValueError(f"{key!a} is not a relative path below its folder, with / between names")
    return key


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`map` on threads with at most `workers` items in memory at a time, unlike `Executor.map`."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
