"""Stores: addresses, keys and servers that are wrong, most of them about a real S3 server."""

import http.server
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from infra.objects import StoreError
from infra.store import open_store
from tests.seaweedfs import BUCKET, SeaweedFS

READER = {"AWS_ACCESS_KEY_ID": "reader-key", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
URL = f"s3://{BUCKET}/faults"
REGION_FAULT = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region "
    "'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>"
)
REDIRECT = (
    "<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be addressed using "
    "the specified endpoint.</Message><Endpoint>s3.eu-west-1.amazonaws.com</Endpoint></Error>"
)
PAGE = "<!DOCTYPE html><html><body>It works!</body></html>"


class Server(SeaweedFS):
    """With a second key, which may read and list and no more."""

    def _command(self, data: Path, identities: Path, ports: list[int]) -> list[str]:
        users = json.loads(identities.read_text())
        credentials = {"accessKey": READER["AWS_ACCESS_KEY_ID"], "secretKey": READER["AWS_SECRET_ACCESS_KEY"]}
        users["identities"].append(
            {"name": "reader", "credentials": [credentials], "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"]}
        )
        identities.write_text(json.dumps(users))
        return super()._command(data, identities, ports)


@dataclass(frozen=True)
class StoreCase:
    """One store that cannot be used."""

    name: str
    says: tuple[str, ...]
    url: str = URL
    environment: Mapping[str, str] | None = None
    """Changes that of a client of the server; an empty value is no value."""
    answers: tuple[int, str] | None = None
    """What another server, in the place of the real one, answers to everything: status and body."""

    def __str__(self) -> str:
        return self.name


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The address of a server that always says this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = _answer  # noqa: N815, the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def meet_store(case: StoreCase, client: Mapping[str, str], folder: Path) -> str | None:
    """What the user is told when a run looks into the store of `case` and publishes to it; None: nothing is wrong.

    `client` is the environment of a client of the real server; `folder` is empty. Raises whatever else comes out of
    the code.
    """
    (folder / "artifact").mkdir()
    (folder / "artifact" / "x.json").write_text("{}")
    (folder / "file").write_text("")
    environment = {**client, "AWS_MAX_ATTEMPTS": "1", **(case.environment or {})}
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ |= {name: value for name, value in environment.items() if value}
        if case.answers is None:
            return _use(case.url, folder)
        with answering(*case.answers) as address:
            os.environ["AWS_ENDPOINT_URL"] = address
            return _use(case.url, folder)


def _use(url: str, folder: Path) -> str | None:
    try:
        store = open_store(url.replace("FOLDER", str(folder)))
        store.read_head("recipe")
        store.publish("split", folder / "artifact")
    except StoreError as error:
        return str(error)
    return None


CASES = (
    StoreCase("a bucket that is not there", ("no bucket of this name", "nowhere", "create it"), "s3://nowhere/x"),
    StoreCase("a bucket's name that is none", ("cannot read", "s3://No_Name", "name"), "s3://No_Name!/x"),
    StoreCase(
        "a key that nobody knows",
        ("does not know the access key", "AWS_ACCESS_KEY_ID"),
        environment={"AWS_ACCESS_KEY_ID": "nobody"},
    ),
    StoreCase(
        "a wrong secret key", ("secret key is wrong", "AWS_SECRET"), environment={"AWS_SECRET_ACCESS_KEY": "x" * 20}
    ),
    StoreCase("a key that may only read", ("cannot write", "refuses access", "lack a right"), environment=READER),
    StoreCase(
        "no key",
        ("no complete credentials", "set AWS_ACCESS_KEY_ID"),
        environment={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ),
    StoreCase("half a key", ("no complete credentials", "set"), environment={"AWS_SECRET_ACCESS_KEY": ""}),
    StoreCase("a wrong region", ("another region", "eu-west-1", "AWS_DEFAULT_REGION"), answers=(400, REGION_FAULT)),
    StoreCase("a bucket elsewhere", ("another region", "AWS_DEFAULT_REGION"), answers=(301, REDIRECT)),
    StoreCase(
        "nobody at the endpoint",
        ("cannot be reached", "AWS_ENDPOINT_URL"),
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    ),
    StoreCase(
        "an endpoint that is no URL",
        ("AWS_ENDPOINT_URL is 'nonsense'", "such as http://"),
        environment={"AWS_ENDPOINT_URL": "nonsense"},
    ),
    StoreCase(
        "a web server for an S3 server", ("web page", "no S3 server", "AWS_ENDPOINT_URL"), answers=(200, PAGE)
    ),
    StoreCase("a server of nothing", ("AWS_ENDPOINT_URL",), answers=(404, PAGE)),
    StoreCase("an unknown kind of store", ("no store of the kind 'gs'", "s3://bucket/prefix"), "gs://bucket/x"),
    StoreCase("an S3 URL without bucket", ("s3://bucket/prefix",), "s3:///x"),
    StoreCase("a query in the URL", ("s3://bucket/prefix", "AWS_"), f"{URL}?versionId=1"),
    StoreCase("a file for a folder", ("file", "folder"), "FOLDER/file/store"),
)
