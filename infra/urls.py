"""From a URL to the objects behind it."""

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from infra.folder_objects import FolderObjects
from infra.objects import Objects, StoreError


def open_objects(url: str) -> Objects:
    """The objects below a folder path, a `file://` URL or `s3://bucket/prefix`.

    S3's endpoint and credentials come from the standard AWS environment; nothing is contacted yet. Raises
    `StoreError` for any other URL, without repeating what may be a password.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        if "@" in parts.netloc or ":" in parts.netloc or not parts.netloc or parts.query or parts.fragment:
            raise StoreError("an S3 URL is s3://bucket/prefix; keys and endpoint belong in the AWS_… variables")
        _check_endpoints()
        from infra.s3_objects import S3Objects  # most runs use a folder, and s3fs takes a second to import

        return S3Objects(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderObjects(Path(url2pathname(parts.path)))
    if "://" in url or not url:
        raise StoreError(f"no store of the kind {parts.scheme!r}; expected a folder, file:// or s3://bucket/prefix")
    return FolderObjects(Path(url))


def _check_endpoints() -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        endpoint = os.environ.get(name)
        if endpoint and not (endpoint.startswith(("http://", "https://")) and urlsplit(endpoint).netloc):
            raise StoreError(f"{name} is {endpoint!r}; expected an address such as http://127.0.0.1:8333")
