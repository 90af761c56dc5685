"""A webhook block of Prefect's whose server is this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from prefect.blocks.webhook import Webhook


@contextmanager
def webhook(name: str) -> Iterator[list[str]]:
    """What the block `webhook/NAME` is told, as it is told."""
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Webhook(url=f"http://127.0.0.1:{server.server_port}/").save(name, overwrite=True)
        yield heard
        server.shutdown()
