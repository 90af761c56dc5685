"""Uses of a real S3 server that refuses, is gone, or is left in the middle."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.digests import DigestCache
from infra.objects import StoreError
from infra.s3_objects import PART_BYTES, S3Objects
from infra.store import Store, open_store
from infra.urls import open_objects
from tests.contract.published import STEP
from tests.seaweedfs import BUCKET, SeaweedFS
from tests.stores import write_files


def uses(url: str) -> list[Callable[[], object]]:
    store = open_store(url)
    return [
        lambda: store.lookup(STEP, "0" * 64),
        lambda: store.exists(f"v1/data/{STEP}/x"),
        lambda: list(store.commits(STEP)),
        lambda: store.read_head("recipe"),
        lambda: store.write_head("recipe", {}),
        lambda: open_objects(url).create("v1/x", b"x"),
    ]


def assert_all_fail(url: str, message: str) -> None:
    for use in uses(url):
        with pytest.raises(StoreError, match=message) as caught:
            use()
        assert caught.value.__cause__ is not None
        assert url in str(caught.value)


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_wrong_credentials_are_an_error_and_never_a_miss(
    s3: SeaweedFS, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert_all_fail(bucket_url, "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
    assert_all_fail(bucket_url, "AWS_ACCESS_KEY_ID")


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_no_credentials_are_an_error_and_never_a_miss(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert_all_fail(bucket_url, "credentials")


@pytest.mark.security("servers for anybody, or for a wrong key")
def test_the_server_itself_refuses_unsigned_requests(s3_environment: dict[str, str]) -> None:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import ClientError

    client = boto3.client("s3", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key="ready")


def test_a_missing_bucket_is_an_error_and_never_a_miss(s3_environment: dict[str, str], tmp_path: Path) -> None:
    assert_all_fail("s3://no-such-bucket/store", "no bucket")
    with pytest.raises(StoreError, match="no bucket"):
        open_store("s3://no-such-bucket").publish(STEP, write_files(tmp_path, {"big": bytes(2 * PART_BYTES)}))


def test_a_stopped_server_is_an_error_and_a_restarted_one_has_everything(
    s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SeaweedFS(tmp_path / "server")
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        url = f"s3://{BUCKET}/store"
        open_store(url).write_head("recipe", {"split": "a"})
        server.stop()
        assert_all_fail(url, "cannot be reached")
        server.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        assert open_store(url).read_head("recipe") == {"split": "a"}
    finally:
        server.stop()


def test_an_interrupted_upload_is_taken_back(bucket_url: str, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    objects = S3Objects(*bucket_url.removeprefix("s3://").split("/", 1))
    folder = write_files(tmp_path / "out", {"big": bytes(3 * PART_BYTES)})
    with pytest.raises(KeyboardInterrupt):
        Store(objects).publish(STEP, folder, stop)
    assert list(objects.find("v1")) == []
    assert not objects._s3.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads")


@pytest.mark.parametrize("acted", [True, False])
def test_an_upload_whose_last_response_was_lost_counts_when_the_server_has_acted(
    acted: bool, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = S3Objects(*bucket_url.removeprefix("s3://").split("/", 1))
    request = objects._s3.call_s3

    def answer_of_the_retry(method: str, **arguments: object) -> object:
        if method == "complete_multipart_upload":
            if acted:
                request(method, **arguments)
            raise FileNotFoundError("NoSuchUpload")
        return request(method, **arguments)

    monkeypatch.setattr(objects._s3, "call_s3", answer_of_the_retry)
    folder = write_files(tmp_path / "out", {"big": b"x" * (2 * PART_BYTES)})
    if acted:
        artifact = Store(objects).publish(STEP, folder)
        staged = open_store(bucket_url).stage(artifact.uri, artifact.digest, tmp_path / "staged")
        assert (staged / "big").read_bytes() == b"x" * (2 * PART_BYTES)
    else:
        with pytest.raises(StoreError, match="cannot write"):
            Store(objects).publish(STEP, folder)


def test_a_raw_folder_and_a_raw_file_are_copied_once_and_again_when_they_change(
    bucket_url: str, tmp_path: Path
) -> None:
    from infra.raw_inputs import describe_folder, stage_folder

    objects = open_objects(bucket_url)
    objects.overwrite("models/tiny/config.json", b"{}")
    objects.overwrite("models/tiny/weights/a.safetensors", b"weights")
    folder, file = f"{bucket_url}/models/tiny", f"{bucket_url}/models/tiny/config.json"
    assert [(item.key, item.bytes) for item in describe_folder(folder)] == [
        ("config.json", 2),
        ("weights/a.safetensors", 7),
    ]
    assert [item.key for item in describe_folder(file)] == ["config.json"]
    copy = stage_folder(folder, tmp_path / "copy", DigestCache(tmp_path / "digests.sqlite"))
    assert (copy / "weights/a.safetensors").read_bytes() == b"weights"
    assert stage_folder(file, tmp_path / "file").read_bytes() == b"{}"
    objects.overwrite("models/tiny/config.json", b"[]")
    assert stage_folder(folder, tmp_path / "copy") == copy
    assert (copy / "config.json").read_bytes() == b"{}"
    with pytest.raises(StoreError, match="nothing at this address"):
        describe_folder(f"{bucket_url}/models/none")


MEMORY = """
import re, sys
from pathlib import Path
from infra.store import open_store

def peak() -> int:
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

url, small, large, into = sys.argv[1], *map(Path, sys.argv[2:])
store = open_store(url)
store.publish("split", small)
before = peak()
artifact = store.publish("split", large)
print(peak() - before)
store.stage(artifact.uri, artifact.digest, into)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_large_transfer_needs_little_memory(bucket_url: str, tmp_path: Path) -> None:
    small = write_files(tmp_path / "small", {"a": b"a"})
    large = tmp_path / "large"
    large.mkdir()
    with (large / "model.safetensors").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(2**20))
    arguments = [bucket_url, str(small), str(large), str(tmp_path / "staged")]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    upload, both = map(int, done.stdout.split())
    assert upload < 150 * 2**20
    assert both < 150 * 2**20
