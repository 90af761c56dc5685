"""A step that leaves a trace of every computation, and processes that compute it when told to."""

import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from queue import Queue
from typing import Any

from forgetting_core.config import Config, Recipe, SyntheticConfig
from forgetting_core.progress import Progress
from infra.curves import CurveSender
from infra.digests import DigestCache
from infra.launch import Launcher
from infra.lease import Leases
from infra.lineage import Lineage
from infra.store import open_store
from infra.urls import open_objects
from tasks.child import Job, Summary
from tasks.context import CURRENT, RunContext
from tasks.spec import StepCall, StepSpec
from tasks.step import run_step


class Trace(Config):
    folder: str
    round: int
    random: bool = True
    """Whether every computation gives other bytes."""


def leave_trace(job: Job, progress: Progress) -> Summary:
    trace: Trace = job.config["trace"]
    folder = Path(trace.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{trace.round}-{uuid.uuid4()}").touch()
    while (folder / "hold").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    (job.out / "data.bin").write_bytes(uuid.uuid4().bytes if trace.random else b"always the same")
    return {}


TRACE = StepSpec("trace", version=1, compute=leave_trace)


def call(folder: Path, round_: int = 0, *, label: str = "trace", random: bool = True, **more: Any) -> StepCall:
    return StepCall(label, TRACE, {"trace": Trace(folder=str(folder), round=round_, random=random)}, **more)


def computations(folder: Path, round_: int = 0) -> int:
    return len(list(folder.glob(f"{round_}-*")))


def open_context(url: str, work: Path, ttl: float = 60.0) -> tuple[RunContext, list[tuple[str, dict[str, Any]]]]:
    """A run without MLflow, and what its listener hears."""
    lineage = Lineage(f"sqlite:///{work}/unused.db", "race")
    lineage.degraded = "not part of this test"
    heard: list[tuple[str, dict[str, Any]]] = []
    context = RunContext(
        recipe=Recipe(name="race", synthetic=SyntheticConfig()),
        store=open_store(url),
        leases=Leases(open_objects(url), ttl, "a-flow-run"),
        lineage=lineage,
        curves=CurveSender(work / "curves", f"sqlite:///{work}/unused.db", "race", lineage.recover),
        launcher=Launcher(2, ("tests.racing",)),
        digests=DigestCache(work / "digests.sqlite"),
        work_dir=work,
        listener=lambda label, message: heard.append((label, message)),
        flow_run_id="a-flow-run",
    )
    return context, heard


def serve() -> None:
    """Compute what standard input asks for, a JSON object per line, each in a run of its own."""
    print("up", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        context, _ = open_context(order["url"], Path(order["work"]), order["ttl"])
        CURRENT.set(context)
        result = run_step(call(Path(order["folder"]), order["round"]), {})
        print(json.dumps({"state": result.state, "digest": result.ref.digest, "uri": result.ref.uri}), flush=True)


class Racer:
    """A process that runs `serve`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.racing import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def await_start(self) -> None:
        assert self._lines.get(timeout=60) == "up\n"

    def order(self, **order: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self, timeout: float = 60) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._lines.get(timeout=timeout))
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
