"""Objects in an S3 bucket, through s3fs.

Endpoint and credentials come from the standard AWS environment or its files; so do the number of attempts
(`AWS_MAX_ATTEMPTS`, `AWS_RETRY_MODE`). Nothing is cached: what another machine wrote a moment ago must be seen.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from heapq import nlargest
from io import BytesIO
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import s3fs
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from fsspec.asyn import sync
from s3fs.core import S3_RETRYABLE_ERRORS

from infra.objects import PROBE, Advance, NotFoundError, Stored, StoreError, check_key, in_order
from infra.s3_errors import explain, is_missing_key, is_refused_condition

MIB = 2**20
PART_BYTES = 8 * MIB
WORKERS = 4
"""Parts in flight. Memory of a transfer is about 3 · WORKERS · PART_BYTES, whatever the file's size."""
WRITE_BYTES = MIB // 4
"""Of one write to a local file: for large ones the system looks for large free pages, which can take seconds."""
MAX_PARTS = 10_000
"""S3's limit for one object."""
CREATE_ATTEMPTS = 5
READ_SECONDS = 60.0
"""How long the server may be silent before a request is sent again."""

FAILURES = (OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS)


class S3Objects:
    """`Objects` below `s3://bucket/prefix`. The client is made at the first use.

    `client` (`key`, `secret`, `endpoint_url`) stands in for what the environment says.
    """

    def __init__(self, bucket: str, prefix: str = "", *, read_seconds: float = READ_SECONDS, **client: str) -> None:
        self.bucket = bucket
        self.root = f"s3://{bucket}/{prefix}".rstrip("/")
        self._base = self.root.removeprefix("s3://") + "/"
        self._honours_conditions = False
        self._s3 = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            max_concurrency=1,  # `cat_file` would send a HEAD first, whose 404 hides a missing bucket
            config_kwargs={"read_timeout": read_seconds},
            **client,
        )

    def read(self, key: str) -> bytes:
        """As `Objects.read`."""
        with self._explained(key, "read"):
            data = bytes(self._s3.cat_file(self._path(key)))
        if key.endswith(".json") and data.startswith(b"<"):
            raise StoreError(
                f"cannot read {self.root}/{key}: the answer is a web page, so AWS_ENDPOINT_URL is no S3 server;"
                " correct it"
            )
        return data

    def read_version(self, key: str) -> tuple[bytes, str]:
        """As `Objects.read_version`; the version is the ETag."""
        with self._explained(key, "read"):
            answer = self._s3.call_s3("get_object", **self._where(key))
            with closing(answer["Body"]) as body:
                return bytes(sync(self._s3.loop, body.read)), str(answer["ETag"])

    def create(self, key: str, data: bytes) -> bool:
        """As `Objects.create`."""
        self._require_conditions()
        for _ in range(CREATE_ATTEMPTS):
            with self._explained(key, "write"):
                try:
                    self._s3.pipe_file(self._path(key), data, mode="create")
                    return True
                except OSError as error:
                    if not is_refused_condition(error):
                        raise
            try:
                return self.read(key) == data
            except NotFoundError:  # a concurrent writer failed, or the object was deleted in between
                continue
        raise StoreError(
            f"cannot write {self.root}/{key}: the server says that it exists and that it does not;"
            " check that no proxy in between caches or rewrites requests"
        )

    def overwrite(self, key: str, data: bytes) -> None:
        """As `Objects.overwrite`."""
        with self._explained(key, "write"):
            self._s3.pipe_file(self._path(key), data)

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """As `Objects.swap`."""
        self._require_conditions()
        with self._explained(key, "write"):
            try:
                self._s3.call_s3("put_object", **self._where(key), Body=data, IfMatch=version)
                return True
            except OSError as error:
                if not (is_refused_condition(error) or is_missing_key(error)):
                    raise
        try:
            return self.read(key) == data  # the response to the first of two attempts may have been lost
        except NotFoundError:
            return False

    def delete(self, key: str) -> None:
        """As `Objects.delete`."""
        with self._explained(key, "delete"):
            self._s3.call_s3("delete_object", **self._where(key))

    def delete_folder(self, prefix: str) -> None:
        """As `Objects.delete_folder`."""
        for _ in in_order(self.delete, (stored.key for stored in self.find(prefix)), WORKERS):
            pass

    def find(self, prefix: str) -> Iterator[Stored]:
        """As `Objects.find`."""
        with self._explained(prefix, "list"):
            found = self._s3.find(self._path(prefix), detail=True)
        for path, info in sorted(found.items()):
            if info["type"] == "file" and not path.endswith("/"):  # a browser's placeholder for an empty folder
                etag = str(info["ETag"]).strip('"')
                yield Stored(path.removeprefix(self._base), int(info["size"]), etag, info["LastModified"])

    def newest(self, prefix: str, limit: int) -> tuple[list[Stored], int]:
        """As `Objects.newest`."""
        found = list(self.find(prefix))
        return nlargest(limit, found, key=attrgetter("modified")), len(found)

    def upload(self, key: str, source: Path, advance: Advance) -> tuple[str, int]:
        """As `Objects.upload`."""
        part_bytes = max(PART_BYTES, -(-source.stat().st_size // (MAX_PARTS - 1)))
        digest = hashlib.sha256()

        def chunks(file: BinaryIO) -> Iterator[bytes]:
            while chunk := file.read(part_bytes):
                digest.update(chunk)
                yield chunk

        with source.open("rb") as file, self._explained(key, "write"):
            parts = chunks(file)
            first = next(parts, b"")
            if len(first) < part_bytes:
                self._s3.pipe_file(self._path(key), first)
                advance(len(first))
            else:
                self._upload_parts(key, chain([first], parts), advance)
            return digest.hexdigest(), file.tell()

    def download(self, key: str, size: int, target: Path, advance: Advance) -> str:
        """As `Objects.download`."""
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file, self._explained(key, "read"):
            for chunk in self.stream(key, size):
                shutil.copyfileobj(BytesIO(chunk), file, WRITE_BYTES)
                digest.update(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def stream(self, key: str, size: int) -> Iterator[bytes]:
        """As `Objects.stream`."""
        path = self._path(key)

        def fetch(start: int) -> bytes:
            return bytes(self._s3.cat_file(path, start=start, end=min(start + PART_BYTES, size)))

        with self._explained(key, "read"):
            yield from in_order(fetch, range(0, size, PART_BYTES), WORKERS)

    def _require_conditions(self) -> None:
        """Once per client, before the first conditional write: that the server refuses one whose condition fails.

        One that ignores conditions lets two runs overwrite each other's commits. Costs two requests.
        """
        if self._honours_conditions:
            return
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": f'"{"0" * 32}"'}):
            if self._writes_twice(condition):
                name = "If-None-Match" if "IfNoneMatch" in condition else "If-Match"
                raise StoreError(
                    f"cannot write {self.root}: the store ignores conditional writes ({name}), so two runs could"
                    " overwrite each other's commits; use one that honours them (AWS S3, MinIO, SeaweedFS, Ceph),"
                    " or a folder"
                )
        self._honours_conditions = True

    def _writes_twice(self, condition: dict[str, str]) -> bool:
        with self._explained(PROBE, "write"):
            for _ in range(2):  # the first time ever, the object is not there yet
                try:
                    self._s3.call_s3("put_object", **self._where(PROBE), Body=b"probe", **condition)
                except OSError as error:
                    if is_refused_condition(error):
                        return False
                    raise
        return True

    def _upload_parts(self, key: str, chunks: Iterator[bytes], advance: Advance) -> None:
        where = self._where(key)
        upload = {**where, "UploadId": self._s3.call_s3("create_multipart_upload", **where)["UploadId"]}

        def send(numbered: tuple[int, bytes]) -> tuple[int, dict[str, Any]]:
            number, chunk = numbered
            answer = self._s3.call_s3("upload_part", **upload, PartNumber=number, Body=chunk)
            return len(chunk), {"PartNumber": number, "ETag": answer["ETag"]}

        parts, size = [], 0
        try:
            with closing(in_order(send, enumerate(chunks, 1), WORKERS)) as sent:
                for length, part in sent:
                    parts.append(part)
                    size += length
                    advance(length)
            self._complete(key, upload, parts, size)
        except BaseException:
            with suppress(*FAILURES):
                self._s3.call_s3("abort_multipart_upload", **upload)
            raise

    def _complete(self, key: str, upload: dict[str, Any], parts: list[dict[str, Any]], size: int) -> None:
        try:
            self._s3.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:
            # done already when only the response to the first attempt was lost; no one else writes to this key
            if self._s3.info(self._path(key))["size"] != size:
                raise

    def _path(self, key: str) -> str:
        return self._base + check_key(key)

    def _where(self, key: str) -> dict[str, str]:
        return dict(zip(("Bucket", "Key"), self._path(key).split("/", 1), strict=True))

    @contextmanager
    def _explained(self, key: str, doing: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            url = f"s3://{self._path(key)}"
            if doing == "read" and is_missing_key(error):
                raise NotFoundError(url) from error
            raise explain(error, doing, url) from error
