"""A server between a client and a real S3 server, which passes requests on and, when told to, spoils them.

It speaks just enough HTTP/1.1: one request per connection, so that whatever is cut concerns one request only.
"""

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.faults.kinds import Kind, Request, answer, is_met_by

HEAD_BYTES = 2**16


@dataclass
class Order:
    """What to spoil: the requests that `kind` fits, after the first `skip` of them, `times` in all."""

    kind: Kind
    skip: int
    times: int
    random: random.Random
    injected: int = 0
    passed: int = 0


@dataclass
class Proxy:
    """A proxy on a free port of 127.0.0.1, in a thread of its own, until `close`."""

    upstream: str
    """`http://host:port`"""
    resign: Callable[[Request], Request]
    """Signs a request anew whose signed headers were taken out."""
    stall_seconds: float
    _order: Order | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES), self._loop
        )
        self._server = started.result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def arm(self, order: Order) -> None:
        """Spoil requests as ordered from now on."""
        with self._lock:
            self._order = order

    def disarm(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._order = None

    def close(self) -> None:
        """Stop listening, and leave the connections that wait."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _fault(self, request: Request) -> Order | None:
        with self._lock:
            order = self._order
            if order is None or not is_met_by(order.kind, request):
                return None
            order.passed += 1
            if order.passed <= order.skip or order.injected >= order.times:
                return None
            order.injected += 1
            return order

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            with suppress(OSError):
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Request.parse(head)
        order = self._fault(request)
        kind = order.kind if order else None
        if kind == "reset":
            return writer.transport.abort()
        if request.headers.pop("expect", None):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if kind == "cut upload":
            await reader.readexactly(request.length // 2)
            return writer.transport.abort()
        request.body = await _body(reader, request)
        if order is not None and (text := answer(order.kind)) is not None:
            writer.write(text)
            return await writer.drain()
        if kind == "stall":
            await asyncio.sleep(self.stall_seconds)
            return writer.transport.abort()
        if kind == "ignored condition":
            del request.headers["if-none-match" if "if-none-match" in request.headers else "if-match"]
            request = self.resign(request)
        if order is not None and kind == "flipped upload":
            request.body = _flipped(request.body, order.random)
        response = await self.forward(request)
        if kind == "lost response":
            return writer.transport.abort()
        head, _, body = response.partition(b"\r\n\r\n")
        if kind == "cut download":
            writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            await writer.drain()
            return writer.transport.close()
        if order is not None and kind == "flipped download":
            body = _flipped(body, order.random)
        writer.write(head + b"\r\n\r\n" + body)
        return await writer.drain()

    async def forward(self, request: Request) -> bytes:
        """The server's answer."""
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request.text())
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, request: Request) -> bytes:
    if request.headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(request.length)


def _flipped(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return data
    spoiled = bytearray(data)
    spoiled[draw.randrange(len(spoiled))] ^= 1 << draw.randrange(8)
    return bytes(spoiled)
