"""`doctor`'s probes of the configured store: each tries the real thing on an object of its own and removes it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from infra.objects import NotFoundError, Objects, StoreError
from infra.settings import Settings
from infra.urls import open_objects

CLOCK_TOLERANCE = timedelta(seconds=5)
S3_RESOLUTION = timedelta(seconds=1)
_UNSAFE = "use one that honours them (AWS S3, MinIO, SeaweedFS, Ceph), or a folder"


def probe_store(settings: Settings) -> str:
    """Write and read back; a second conditional create and a swap of an old version must be refused."""
    objects = open_objects(settings.store_url)
    with _new_key(objects) as key:
        first, second = uuid.uuid4().bytes, uuid.uuid4().bytes
        if not objects.create(key, first):
            raise StoreError("a conditional create of a new key was refused")
        data, version = objects.read_version(key)
        if data != first:
            raise StoreError("what was written cannot be read back; the store is not consistent")
        if objects.create(key, uuid.uuid4().bytes) or objects.read(key) != first:
            raise StoreError(
                "the store ignores conditional writes (If-None-Match): two runs could overwrite each other's"
                f" commits; {_UNSAFE}"
            )
        if not objects.swap(key, second, version) or objects.read(key) != second:
            raise StoreError(f"the store refuses to replace an object by its version (If-Match); {_UNSAFE}")
        if objects.swap(key, uuid.uuid4().bytes, version) or objects.read(key) != second:
            raise StoreError(
                "the store ignores versions (If-Match): two runs could replace each other's commits and leases;"
                f" {_UNSAFE}"
            )
        objects.delete(key)
        with suppress(NotFoundError):
            objects.read(key)
            raise StoreError("a deleted object can still be read; the store is not consistent")
    return f"{objects.root}: writes, reads back, and refuses a second create and a swap of an old version"


def probe_credentials(settings: Settings) -> str:
    """A wrong secret must be rejected, or anyone on the network could change results."""
    objects = open_objects(settings.store_url)
    if not objects.root.startswith("s3://"):
        return "a folder: the file system decides who may read and write"
    from botocore.session import Session  # type: ignore[import-untyped]

    from infra.s3_errors import is_denied
    from infra.s3_objects import S3Objects

    known = Session().get_credentials()
    if known is None:
        raise StoreError("no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    bucket, _, prefix = objects.root.removeprefix("s3://").partition("/")
    stranger = S3Objects(bucket, prefix, key=known.access_key, secret=uuid.uuid4().hex)
    try:
        with _new_key(stranger) as key:
            stranger.create(key, b"written with a wrong secret")
    except StoreError as error:
        if error.__cause__ is not None and is_denied(error.__cause__):
            return "a wrong secret is rejected"
        raise
    raise StoreError(
        "the server accepts a wrong secret: anyone who reaches it can read and change results; switch its"
        " authentication on (SeaweedFS: -s3.config=FILE; MinIO: MINIO_ROOT_USER and MINIO_ROOT_PASSWORD)"
    )


def probe_clock(settings: Settings) -> str:
    """The store's clock against ours: the ages of objects, leases and signatures are told by both."""
    objects = open_objects(settings.store_url)
    with _new_key(objects) as key:
        before = datetime.now(UTC)
        objects.create(key, uuid.uuid4().bytes)
        after = datetime.now(UTC)
        (stored,) = objects.find(key)
    skew = max(before - S3_RESOLUTION - stored.modified, stored.modified - after, timedelta())
    if skew <= CLOCK_TOLERANCE:
        return f"the store's clock and ours agree within {CLOCK_TOLERANCE.seconds} s"
    return (
        f"WARNING: the store's clock and ours differ by {skew.total_seconds():.0f} s; set this machine's clock"
        " (NTP): S3 refuses requests beyond 15 minutes, and ages of objects are wrong"
    )


@contextmanager
def _new_key(objects: Objects) -> Iterator[str]:
    key = f"v1/doctor/{uuid.uuid4()}"
    try:
        yield key
    except BaseException:
        with suppress(StoreError):  # what went wrong first says more
            objects.delete(key)
        raise
    objects.delete(key)
