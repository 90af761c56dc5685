"""Many faults of every kind at the level of the store, each drawn by a seed, and what became of each."""

import random
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Literal
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from benchmarks.faults.kinds import KINDS, LASTING, Kind, Request
from benchmarks.faults.operations import OPERATIONS, STEP, Operation, identity
from benchmarks.faults.proxy import Order, Proxy
from benchmarks.visible import damaged
from infra.fingerprint import fingerprint
from infra.objects import StoreError
from infra.s3_objects import S3Objects
from infra.seaweedfs import BUCKET, REGION
from infra.store import Store
from tests.seaweedfs import SeaweedFS

WORKERS = 6
READ_SECONDS = 3
"""How long a client waits here for an answer; runs wait a minute."""
STALL_SECONDS = READ_SECONDS + 1.0
LARGEST_BURST = 4
Outcome = Literal["right", "said", "lost", "not met"]
"""`right`: the right result. `said`: a `StoreError`. `not met`: the operation has no request for the fault."""


@dataclass(frozen=True)
class Trial:
    """One operation under one fault."""

    operation: type[Operation]
    kind: Kind
    seed: int


@dataclass(frozen=True)
class Result:
    """What became of a trial."""

    trial: Trial
    outcome: Outcome
    injected: int
    said: str = ""


def trials(count: int) -> list[Trial]:
    """At least `count` trials: every operation under every kind of fault, over and over, with other seeds."""
    pairs = list(product(OPERATIONS, KINDS))
    rounds = -(-count // len(pairs))
    return [
        Trial(operation, kind, seed)
        for seed, (operation, kind) in enumerate(pair for _ in range(rounds) for pair in pairs)
    ]


def run_trials(asked: Iterable[Trial], server: SeaweedFS) -> Iterator[Result]:
    """The results, several trials at a time."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        for name, value in {**server.environment(), "AWS_MAX_ATTEMPTS": "2"}.items():
            patch.setenv(name, value)
        benches: SimpleQueue[_Bench] = SimpleQueue()
        for number in range(WORKERS):
            proxy = new_proxy(server)
            prefix = f"faults/{number}"
            sound, spoiled = _open(server.endpoint_url, prefix), _open(proxy.url, prefix)
            benches.put(_Bench(proxy, prefix, sound, spoiled, Path(scratch)))

        def run(trial: Trial) -> Result:
            bench = benches.get()
            try:
                return _run(trial, bench)
            finally:
                benches.put(bench)

        with ThreadPoolExecutor(WORKERS) as pool:
            yield from pool.map(run, asked)
        for _ in range(WORKERS):
            benches.get().proxy.close()


@dataclass(frozen=True)
class _Bench:
    """Where one trial at a time is done: a store without faults and the same behind a proxy."""

    proxy: Proxy
    prefix: str
    sound: Store
    spoiled: Store
    scratch: Path


def new_proxy(server: SeaweedFS) -> Proxy:
    """A proxy before the server, which holds the owner's keys."""
    return Proxy(server.endpoint_url, lambda request: _resigned(request, server), STALL_SECONDS)


def _run(trial: Trial, bench: _Bench) -> Result:
    draw = random.Random(trial.seed)
    times = 10**6 if trial.kind in LASTING else draw.randint(1, LARGEST_BURST)
    skip = 0 if trial.kind == "ignored condition" else draw.randrange(4)  # such a server is so from the start
    order = Order(trial.kind, skip, times, draw)
    result = _attempt(trial, order, bench)
    if result.outcome == "not met":  # it had fewer requests than were skipped
        order = Order(trial.kind, 0, times, draw)
        result = _attempt(trial, order, bench)
    return result


def _attempt(trial: Trial, order: Order, bench: _Bench) -> Result:
    operation = trial.operation(bench.scratch / uuid.uuid4().hex)
    # a client asks a server once whether it honours conditions
    fresh = trial.kind == "ignored condition"
    spoiled = _open(bench.proxy.url, bench.prefix) if fresh else bench.spoiled
    operation.before(bench.sound)
    with _armed(bench.proxy, order):
        try:
            value = operation.act(spoiled)
            said = ""
        except StoreError as error:
            said = str(error) or "nothing"
        except Exception as error:
            return Result(trial, "lost", order.injected, f"{type(error).__name__}: {error}")
    fault = _visible_damage(bench.sound, operation) or (None if said else operation.judge(bench.sound, value))
    if fault:
        return Result(trial, "lost", order.injected, f"{fault} (said: {said})")
    if not order.injected:
        return Result(trial, "not met", 0, said)
    return Result(trial, "said" if said else "right", order.injected, said)


def _visible_damage(store: Store, operation: Operation) -> str | None:
    """What is wrong with the commit that can be seen, if any, whatever the operation said."""
    commit = store.lookup(STEP, fingerprint(identity(operation.seed)))
    faults = damaged(store.objects, commit) if commit else []
    return f"a commit is visible whose artifact is damaged: {'; '.join(faults)}" if faults else None


@contextmanager
def _armed(proxy: Proxy, order: Order) -> Iterator[None]:
    proxy.arm(order)
    try:
        yield
    finally:
        proxy.disarm()


def _open(url: str, prefix: str) -> Store:
    return Store(S3Objects(BUCKET, prefix, read_seconds=READ_SECONDS, endpoint_url=url))


def _resigned(request: Request, server: SeaweedFS) -> Request:
    unsigned = {
        name: value
        for name, value in request.headers.items()
        if name not in ("authorization", "x-amz-date", "content-length", "host", "user-agent", "connection")
    }
    aws = AWSRequest(request.method, f"{server.endpoint_url}{request.target}", unsigned, request.body)
    S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", REGION).add_auth(aws)
    headers = {name.lower(): str(value) for name, value in aws.headers.items()}
    host = urlsplit(server.endpoint_url).netloc
    headers |= {"host": host, "content-length": str(len(request.body))}
    return Request(request.method, request.target, headers, request.body)
