"""A proxy before the S3 server that stops in the middle of a write, so that something can be killed just then."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

from benchmarks.faults.kinds import Request
from benchmarks.faults.proxy import Proxy

WRITES = ("PUT", "POST", "DELETE")


@dataclass(frozen=True)
class Write:
    """A request that changes the store."""

    at: float
    """By the monotonic clock."""
    target: str


@dataclass
class Gate(Proxy):
    """Passes everything on; one write may be held."""

    writes: list[Write] = field(default_factory=list)
    """Since `watch`."""
    reached: threading.Event = field(default_factory=threading.Event)
    """That the write is here which is to be held."""
    _held: int | None = None
    _answered: bool = False
    _released: threading.Event = field(default_factory=threading.Event)

    def watch(self, held: int | None = None, *, answered: bool = False) -> None:
        """Note writes from now on, and hold that of this number, before or after it is done."""
        self.reached.clear()
        self._released.clear()
        self._held, self._answered = held, answered
        self.writes = []

    def release(self) -> None:
        """Let the write that is held go on, and hold no other."""
        self._held = None
        self._released.set()

    async def forward(self, request: Request) -> bytes:
        """As `Proxy.forward`."""
        if request.method not in WRITES:
            return await super().forward(request)
        number = len(self.writes)
        self.writes.append(Write(time.monotonic(), request.target))
        if number != self._held:
            return await super().forward(request)
        answer = await super().forward(request) if self._answered else None
        self.reached.set()
        await asyncio.to_thread(self._released.wait)
        return answer if answer is not None else await super().forward(request)
