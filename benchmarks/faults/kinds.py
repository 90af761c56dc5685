"""The faults: which requests each concerns, and what a server says that has them."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "503",
    "slow down",
    "reset",
    "cut upload",
    "cut download",
    "lost response",
    "stall",
    "flipped upload",
    "flipped download",
    "full disk",
    "read-only key",
    "ignored condition",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LASTING: frozenset[Kind] = frozenset({"full disk", "read-only key", "ignored condition"})
"""They do not pass by themselves."""
_ANSWERS: dict[Kind, tuple[int, str, str]] = {
    "503": (503, "ServiceUnavailable", "Please reduce your request rate"),
    "slow down": (503, "SlowDown", "Please reduce your request rate"),
    "full disk": (507, "InsufficientStorage", "There is no space left on the device"),
    "read-only key": (403, "AccessDenied", "Access Denied"),
}


@dataclass
class Request:
    """One request of a client; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @classmethod
    def parse(cls, head: bytes) -> "Request":
        """The request that begins with `head`."""
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        return cls(method, target, {name.lower().strip(): value.strip() for name, value in pairs})

    @property
    def length(self) -> int:
        """Bytes of the body, where the client says so."""
        return int(self.headers.get("content-length", 0))

    def text(self) -> bytes:
        """What is sent on; the server closes the connection after its answer."""
        headers = {**self.headers, "connection": "close"}
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


def is_met_by(kind: Kind, request: Request) -> bool:
    """Whether a request can have this fault."""
    match kind:
        case "cut upload" | "flipped upload":
            return request.method in ("PUT", "POST") and request.length > 1
        case "cut download":
            return request.method == "GET"
        case "flipped download":  # a listing has no checksum anywhere; what it names wrongly is not there
            return request.method == "GET" and "list-type=" not in request.target
        case "full disk":
            return request.method in ("PUT", "POST")
        case "read-only key":
            return request.method in ("PUT", "POST", "DELETE")
        case "ignored condition":
            return bool(request.headers.keys() & {"if-none-match", "if-match"})
        case _:
            return True


def answer(kind: Kind) -> bytes | None:
    """What the server says instead of doing it; None where it says nothing of its own."""
    if kind not in _ANSWERS:
        return None
    status, code, message = _ANSWERS[kind]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body
