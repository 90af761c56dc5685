"""A checkpoint to a real S3 server and back, against the bare multipart transfer of the same bytes by boto3."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import boto3  # type: ignore[import-untyped]
import numpy as np

from benchmarks.memory import MB, in_own_process
from benchmarks.rows import Row, at_least, at_most
from benchmarks.timing import Times, take_turns
from infra.digests import DigestCache
from infra.s3_objects import S3Objects
from infra.store import Store
from tests.seaweedfs import BUCKET, SeaweedFS

MIB = 2**20
SIZES = {True: 256 * MIB, False: 2048 * MIB}
ROUNDS = 3
SHARE = 0.8
"""Of the bare transfer's speed."""
MEMORY_MB = 250
WEIGHTS = "model.safetensors"


def measure(quick: bool) -> list[Row]:
    """The rows of the store."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        server = SeaweedFS(root / "server")
        server.start()
        try:
            with patch.dict(os.environ, server.environment()):
                return list(_rows(root, SIZES[quick]))
        finally:
            server.stop()


def _rows(root: Path, size: int) -> Iterator[Row]:
    checkpoint = root / "checkpoint"
    write_checkpoint(checkpoint, size)
    times = take_turns(
        {
            "ours": lambda: there_and_back(checkpoint, root / "ours"),
            "bare": lambda: bare_transfer(checkpoint / WEIGHTS, root / "bare"),
        },
        rounds=ROUNDS,
    )
    what = f"{size // MIB} MiB to SeaweedFS and back, with digests"
    note = f"{_speed(times, 'ours', size)} to {_speed(times, 'bare', size)}, each way"
    yield at_least(what, times.ratio("bare", to="ours"), "× a bare multipart transfer", SHARE, note)
    used = in_own_process(there_and_back, checkpoint, root / "measured")
    note = f"{used.added / MB:.0f} MB above what was there before"
    yield at_most(f"memory for {size // MIB} MiB, the whole process", used.peak / MB, "MB", MEMORY_MB, note)


def write_checkpoint(folder: Path, size: int) -> None:
    """A folder like a model's, with weights of `size` bytes that nothing can compress."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    generator = np.random.Generator(np.random.PCG64(0))
    with (folder / WEIGHTS).open("wb") as file:
        for _ in range(size // (16 * MIB)):
            file.write(generator.bytes(16 * MIB))


def there_and_back(checkpoint: Path, work: Path) -> None:
    """What a run does with a checkpoint: publish it, and stage it on another machine; every digest is checked."""
    store = Store(S3Objects(BUCKET, "store"))
    artifact = store.publish("forget", checkpoint)
    store.stage(artifact.uri, artifact.digest, work / "staged", DigestCache(work / "digests.db"))
    _clear(store, artifact.uri, work)


def _clear(store: Store, uri: str, work: Path) -> None:
    store.objects.delete_folder(uri.removeprefix(f"{store.root}/"))
    shutil.rmtree(work)


def bare_transfer(weights: Path, work: Path) -> None:
    """The same bytes in parts, several at a time, as boto3 does by itself; nothing is digested or checked.

    As with ours they are on the disk at the end, not only in the memory of the operating system.
    """
    work.mkdir()
    client = boto3.client("s3")
    client.upload_file(str(weights), BUCKET, "bare")
    client.download_file(BUCKET, "bare", str(work / "weights"))
    with (work / "weights").open("rb") as file:
        os.fsync(file.fileno())
    client.delete_object(Bucket=BUCKET, Key="bare")
    shutil.rmtree(work)


def _speed(times: Times, name: str, size: int) -> str:
    return f"{2 * size / MB / times.median(name):.0f} MB/s"
