"""What is done to a store while it fails, and what has to be true of each afterwards.

An operation sets itself up on a store without faults (`before`), is done on one with a fault (`act`), and says what
is wrong with what came out (`judge`, again without faults). An error that the store explains is always right; a
wrong answer, a miss, or another exception never is.
"""

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.visible import damaged
from infra.commits import Commit
from infra.digests import file_sha256
from infra.fingerprint import fingerprint, step_payload
from infra.lease import Leases
from infra.store import Store
from tests.stores import commit_of, write_files

STEP = "split"
SUMMARY = {"rows": 160, "metrics": {"acc": 0.4375, "loss": 2.8125}}
LARGE = 17 * 2**20
"""More than two parts of an upload."""
LEASE_SECONDS = 60.0


def write_output(folder: Path, size: int) -> Path:
    """A small artifact's files, the first of `size` bytes, different every time."""
    large, metrics = uuid.uuid4().bytes * (size // 16), uuid.uuid4().hex.encode()
    return write_files(folder, {"train/0.parquet": large, "metrics.json": metrics, "aux/times.json": b"{}"})


def identity(seed: str) -> dict[str, Any]:
    """What the fingerprint of a trial's commit is made of."""
    return step_payload(STEP, 1, {"seed": seed}, {})


@dataclass
class Operation(ABC):
    """One use of a store; `folder` is its scratch space."""

    size: ClassVar[int] = 4096
    """Bytes of the largest file."""

    folder: Path
    seed: str = field(default_factory=lambda: uuid.uuid4().hex)

    def before(self, store: Store) -> None:  # noqa: B027 - most need nothing
        """What has to be there."""

    @abstractmethod
    def act(self, store: Store) -> Any:
        """The use."""

    @abstractmethod
    def judge(self, store: Store, result: Any) -> str | None:
        """What is wrong after the use has come to an end with `result`; None: nothing."""

    def publish(self, store: Store, folder: str) -> Commit:
        """Upload a new artifact from a folder of the scratch space; the commit to be made of it."""
        artifact = store.publish(STEP, write_output(self.folder / folder, self.size))
        return commit_of(artifact, store.root, identity(self.seed), summary=SUMMARY)


class Stored(Operation):
    """Base of what finds a committed artifact."""

    def before(self, store: Store) -> None:
        """Publish and commit."""
        self.commit = store.commit(self.publish(store, "out"))


class Publish(Operation):
    """Upload an artifact and commit it."""

    def act(self, store: Store) -> Commit:
        """As a step ends."""
        return store.commit(self.publish(store, "out"))

    def judge(self, store: Store, result: Commit) -> str | None:
        """The commit is there, and its artifact is what it says."""
        known = store.lookup(STEP, result.fingerprint)
        if known != result.model_copy(update={"adopted": False}) or result.adopted:
            return f"the commit is {known}, not {result}"
        return "; ".join(damaged(store.objects, known)) or None


class PublishLarge(Publish):
    """The same in several parts."""

    size = LARGE


class Adopt(Stored):
    """Commit what another run has committed meanwhile."""

    def act(self, store: Store) -> Commit:
        """As the loser of a race ends."""
        return store.commit(self.publish(store, "new"))

    def judge(self, store: Store, result: Commit) -> str | None:
        """The first commit stands and is what both go on with."""
        known = store.lookup(STEP, result.fingerprint)
        if known != self.commit or result.artifact != known.artifact or not result.adopted:
            return f"the commit is {known}, not {self.commit}; the loser has {result}"
        return None


class Replace(Stored):
    """Put another artifact in a commit's place."""

    def act(self, store: Store) -> Commit:
        """As a refresh ends."""
        return store.replace(self.commit, self.publish(store, "new"))

    def judge(self, store: Store, result: Commit) -> str | None:
        """The new commit stands, the old one is in the history."""
        known = store.lookup(STEP, result.fingerprint)
        if known is None or known.artifact != result.artifact or result.adopted:
            return f"the commit is {known}, not {result}"
        history = [stored.key for stored in store.objects.find(f"v1/history/{STEP}/{result.fingerprint}")]
        if len(history) != 1:
            return f"the history is {history}"
        return "; ".join(damaged(store.objects, known)) or None


class Lookup(Stored):
    """Ask whether a step is done."""

    def act(self, store: Store) -> Commit | None:
        """As every step begins."""
        return store.lookup(STEP, self.commit.fingerprint)

    def judge(self, store: Store, result: Commit | None) -> str | None:
        """The very commit; a miss would be a silent recomputation."""
        return None if result == self.commit else f"found {result}, expected {self.commit}"


class Exists(Stored):
    """Ask whether a commit's artifact is there."""

    def act(self, store: Store) -> bool:
        """As every hit is checked."""
        return store.exists(self.commit.uri)

    def judge(self, store: Store, result: bool) -> str | None:
        """It is; "evicted" would be a silent recomputation."""
        return None if result else "it was taken for evicted"


class Stage(Stored):
    """Fetch an artifact for a step."""

    def act(self, store: Store) -> Path:
        """As every input is brought here."""
        return store.stage(self.commit.uri, self.commit.digest, self.folder / "staged", aux=True)

    def judge(self, store: Store, result: Path) -> str | None:
        """Byte for byte what was stored."""
        for name in ("train/0.parquet", "metrics.json"):
            if file_sha256(result / name) != file_sha256(self.folder / "out" / name):
                return f"{name} has other bytes"
        return None


class StageLarge(Stage):
    """The same in several parts."""

    size = LARGE


class Lease(Operation):
    """Take the lease of a step, work, release it."""

    def act(self, store: Store) -> bool:
        """As every computation is framed."""
        lease = Leases(store.objects, LEASE_SECONDS).candidate(STEP, fingerprint(identity(self.seed))).attempt()
        if lease is not None:
            with lease:
                pass
        return lease is not None

    def judge(self, store: Store, result: bool) -> str | None:
        """Who asked alone got it; whether it is free again, the time to live sees to in the end."""
        return None if result else "the lease went to nobody"


class Records(Operation):
    """Write what a run used, and read it again."""

    def act(self, store: Store) -> list[Any]:
        """As every run ends and every plan begins."""
        record = {"flow_run_id": self.seed, "recipe": "r", "steps": {}, "metrics": {"acc": 0.4375}}
        store.record_run(self.seed, record)
        store.write_head(self.seed, record)
        return [record, store.read_run(self.seed), store.read_head(self.seed)]

    def judge(self, store: Store, result: list[Any]) -> str | None:
        """What was written."""
        record = result[0]
        stored = [store.read_run(self.seed), store.read_head(self.seed)]
        return None if [*result[1:], *stored] == [record] * 4 else f"{result} {stored}"


OPERATIONS: tuple[type[Operation], ...] = (
    *(Publish, PublishLarge, Adopt, Replace, Lookup, Exists, Stage, StageLarge, Lease, Records),
)
