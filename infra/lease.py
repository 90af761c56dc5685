"""Who is working on a step now, so that two runs do not spend their GPUs on the same thing.

A lease (`v1/leases/{step}/{fingerprint}.json`) names its holder, who renews it by compare-and-swap three times in
its time to live. Whoever waits takes it over, by compare-and-swap too, when it has not *seen the record change* for
that time by its own monotonic clock; so the clocks of two machines need not agree, and a holder that was killed is
replaced. Leases save time and are never needed for correctness: a commit has one winner without them, and a holder
that lost its lease or cannot reach the store only logs that.
"""

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.fingerprint import canonical_json
from infra.objects import NotFoundError, Objects, StoreError

LEASES = "v1/leases"
RENEWALS_PER_TTL = 3
logger = logging.getLogger(__name__)


class Holder(BaseModel):
    """The record: who holds a lease."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: str
    """Unique to one acquisition."""
    host: str
    pid: int
    flow_run_id: str
    mlflow_run_id: str | None = None
    """Its pipeline run, for whoever takes over to close; None without MLflow."""
    acquired: datetime
    heartbeat: datetime
    """By the holder's clock: for people, and for a plan that looks only once."""
    ttl: float
    """Seconds without a change after which others may take over."""
    released: bool = False
    """Given up without a result: free for whoever comes next."""

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, flow run {self.flow_run_id}, since {self.acquired:%H:%M:%S} UTC"

    @property
    def seems_alive(self) -> bool:
        """Whether the heartbeat is recent, as far as two clocks agree."""
        return not self.released and datetime.now(UTC) - self.heartbeat < timedelta(seconds=self.ttl)


class Leases:
    """The leases of one store, on behalf of one flow run. `ttl` in seconds; 0: none are taken."""

    def __init__(
        self, objects: Objects, ttl: float, flow_run_id: str = "", mlflow_run_id: str | None = None
    ) -> None:
        self._objects = objects
        self._ttl = ttl
        self._flow_run_id = flow_run_id
        self._mlflow_run_id = mlflow_run_id

    def holder(self, step: str, fingerprint: str) -> Holder | None:
        """Who seems to work on a step now. Raises `StoreError`."""
        try:
            holder = _decode(self._objects.read(_key(step, fingerprint)))
        except NotFoundError:
            return None
        return holder if holder is not None and holder.seems_alive else None

    def at_work(self) -> dict[str, Holder]:
        """{flow run id: one of the leases that it seems to hold now}. Raises `StoreError`."""
        found = {}
        for stored in self._objects.find(LEASES):
            try:
                holder = _decode(self._objects.read(stored.key))
            except NotFoundError:
                continue
            if holder is not None and holder.seems_alive:
                found[holder.flow_run_id] = holder
        return found

    def candidate(self, step: str, fingerprint: str) -> "Candidate":
        """Someone who wants the lease of a step."""
        return Candidate(self._objects, _key(step, fingerprint), self._ttl, self._new_holder)

    def _new_holder(self) -> Holder:
        now = datetime.now(UTC)
        return Holder(
            token=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            flow_run_id=self._flow_run_id,
            mlflow_run_id=self._mlflow_run_id,
            acquired=now,
            heartbeat=now,
            ttl=self._ttl,
        )


class Candidate:
    """Tries to get one lease, and remembers since when its record has not changed."""

    def __init__(self, objects: Objects, key: str, ttl: float, new_holder: Callable[[], Holder]) -> None:
        self.holder: Holder | None = None
        """Who had it at the last attempt; None also when the record cannot be read."""
        self.lost: Holder | None = None
        """Whose lease was taken over, because it gave no sign of life."""
        self._objects = objects
        self._key = key
        self._ttl = ttl
        self._new_holder = new_holder
        self._seen_version = ""
        self._seen_since = 0.0

    def attempt(self) -> AbstractContextManager[Any] | None:
        """The lease, to be entered at once, or None while someone else has it. Raises `StoreError`."""
        if not self._ttl:
            return nullcontext()
        mine = self._new_holder()
        try:
            data, version = self._objects.read_version(self._key)
        except NotFoundError:
            created = self._objects.create(self._key, _encode(mine))
            return Lease(self._objects, self._key, mine) if created else None
        self.holder = _decode(data)
        if not self._is_free(version):
            return None
        if not self._objects.swap(self._key, _encode(mine), version):
            return None
        if self.holder is not None and not self.holder.released:
            self.lost = self.holder
        return Lease(self._objects, self._key, mine)

    def _is_free(self, version: str) -> bool:
        if self.holder is not None and self.holder.released:
            return True
        if version != self._seen_version:
            self._seen_version, self._seen_since = version, time.monotonic()
        ttl = self.holder.ttl if self.holder is not None else self._ttl
        return time.monotonic() - self._seen_since >= ttl


class Lease:
    """A lease that is held while its `with` block runs; a thread renews it."""

    def __init__(self, objects: Objects, key: str, mine: Holder) -> None:
        self._objects = objects
        self._key = key
        self._mine = mine
        self._over = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lease {key}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._lost:
            return
        try:
            # deleting without comparing could hit a successor; after a success that one finds the result anyway
            if self._replace(released=True) and error is None:
                self._objects.delete(self._key)
        except StoreError as failure:
            logger.warning("the lease %s could not be released and will time out: %s", self._key, failure)

    def _renew(self) -> None:
        while not self._over.wait(self._mine.ttl / RENEWALS_PER_TTL):
            try:
                self._lost = not self._replace(heartbeat=datetime.now(UTC))
            except StoreError as failure:
                logger.warning("the lease %s could not be renewed: %s", self._key, failure)
            if self._lost:
                logger.warning(
                    "the lease %s was taken over, because this process did not renew it in time; the work goes on,"
                    " and whoever commits first wins",
                    self._key,
                )
                return

    def _replace(self, **changes: Any) -> bool:
        """Change the record while it is ours; whether it was."""
        try:
            data, version = self._objects.read_version(self._key)
        except NotFoundError:
            return False
        current = _decode(data)
        if current is None or current.token != self._mine.token:
            return False
        return self._objects.swap(self._key, _encode(self._mine.model_copy(update=changes)), version)


def _key(step: str, fingerprint: str) -> str:
    return f"{LEASES}/{step}/{fingerprint}.json"


def _encode(holder: Holder) -> bytes:
    return canonical_json(holder.model_dump(mode="json"))


def _decode(data: bytes) -> Holder | None:
    """The record; None for a damaged one, which times out like any other."""
    try:
        return Holder.model_validate_json(data)
    except ValidationError:
        return None
