"""What every step of a run shares: the store, the lineage, the launcher, and who is watching.

A context variable carries it into the threads in which Prefect runs tasks; nothing of it is a task parameter, so
nothing of it is shown, stored or fingerprinted.
"""

import fcntl
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from forgetting_core.config import ExecutionConfig, Recipe, identity
from infra.curves import CurveSender
from infra.digests import DigestCache
from infra.launch import Launcher
from infra.lease import Leases
from infra.lineage import Lineage
from infra.store import Store

PRELOAD = ("forgetting_core.preload",)
"""Imported once by the server from which the steps' processes are forked."""

Listener = Callable[[str, dict[str, Any]], None]
"""Told (step, message) of every message of a step's process, and of its start and end."""


@dataclass
class RunContext:
    """One flow run's surroundings."""

    recipe: Recipe
    store: Store
    leases: Leases
    lineage: Lineage
    curves: CurveSender
    launcher: Launcher
    digests: DigestCache
    work_dir: Path
    listener: Listener
    flow_run_id: str
    gpu_slot: str | None = None
    """Global concurrency limit of the Prefect server that work on the device is done under."""
    provenance: dict[str, Any] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    used: dict[str, Any] = field(default_factory=dict)
    """Commit of each step so far: what the run record names."""
    calls: dict[str, Any] = field(default_factory=dict)
    """(call, inputs) of each step by label: how to compute it again when its artifact turns out to be gone."""
    restoring: dict[str, threading.Lock] = field(default_factory=dict)
    """By label; held while a step is computed again."""
    _recording: threading.Lock = field(default_factory=threading.Lock)

    def use(self, label: str, result: Any) -> None:
        """Note in the store, at once, what this run uses: a garbage collector keeps what a run has named."""
        with self._recording:
            self.used[label] = result
            self.store.record_run(self.flow_run_id, self.run_record())

    def drop(self, labels: Iterable[str]) -> None:
        """Forget steps that only served another one: the run is not what keeps their artifacts."""
        with self._recording:
            for label in labels:
                self.used.pop(label, None)

    def run_record(self, status: str | None = None, **ending: Any) -> dict[str, Any]:
        """What a garbage collector must keep, the next plan compares with, and MLflow's records are made of again.

        `status` is how the run ended, if it did, and `ending` what else MLflow is told then.
        """
        ended = {"status": status, "ended": datetime.now(UTC).isoformat(), **ending} if status else {}
        return {
            **ended,
            "recipe": self.recipe.name,
            "flow_run_id": self.flow_run_id,
            "mlflow_run_id": self.lineage.run_id,
            "identity": identity(self.recipe),
            "started": self.started.isoformat(),
            "finished": status is not None,
            "lineage": self.lineage.opening,
            "steps": {
                label: {
                    "step": result.step,
                    "fingerprint": result.fingerprint,
                    "artifact": result.ref.uri.removeprefix(f"{self.store.root}/"),
                }
                for label, result in self.used.items()
            },
        }

    @property
    def execution(self) -> ExecutionConfig:
        """How and where steps are computed."""
        return self.recipe.execution

    @property
    def staged_dir(self) -> Path:
        """Where artifacts of a remote store are copied to."""
        return self.work_dir / "staged"

    @contextmanager
    def attempt_dir(self, step: str, fingerprint: str) -> Iterator[Path]:
        """Scratch of one step, for one attempt at a time.

        It is the same at every attempt, so that an interrupted training is found again, except while somebody else
        on this machine uses it (whose lease was taken over, say): then it is a folder of its own.
        """
        folder = self.work_dir / "steps" / f"{step}-{fingerprint[:24]}"
        lock = _lock(folder)
        if lock is None:
            yield folder.with_name(f"{folder.name}-{uuid.uuid4().hex}")
        else:
            with lock:
                yield folder


def _lock(folder: Path) -> BinaryIO | None:
    """A lock on `folder` until it is closed, or None when somebody else has it or is just deleting the folder."""
    path = folder / ".lock"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("ab")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    file.close()
    return None


CURRENT: ContextVar[RunContext] = ContextVar("forgetting_run")


def log_messages(step: str, message: dict[str, Any]) -> None:
    """The listener of a run that nobody watches on a terminal: notes and states go to its page in Prefect."""
    from prefect.logging import get_run_logger  # the planner reads this module too

    said = get_run_logger()
    if message["kind"] == "note":
        said.info("%s: %s", step, message["message"])
    elif message["kind"] != "log":
        said.debug("%s: %s", step, message)


LISTENER: ContextVar[Listener] = ContextVar("forgetting_listener", default=log_messages)
LAUNCHED: ContextVar[Callable[[Launcher], None]] = ContextVar("forgetting_launched", default=lambda launcher: None)
"""Handed the launcher when a run starts, so that whoever started the run can stop it."""
