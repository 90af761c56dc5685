"""A run of the small pipeline, by command or by a worker: its processes, and how it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil
from prefect.client.schemas.objects import FlowRun

from tests.stack import Running

ASK_SECONDS = 0.5
"""How long an answer of Prefect's server counts: asked all the time, it would do little else."""
COMMAND = (sys.executable, "-c", "from flows.cli import main; main()")


class Run(Protocol):
    """One that was started."""

    def flow(self) -> psutil.Process | None:
        """The process of the flow; None before it is there, and after."""

    def over(self) -> bool:
        """Whether it has ended, however that came about."""

    def completed(self) -> bool:
        """Whether that was its good end."""

    def said(self) -> str:
        """How it ended, in a line."""

    def give_up(self) -> None:
        """End what is left of it."""


class CommandRun:
    """`forgetting run`, in a process group of its own."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self._log = folder / "run.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "run", *arguments],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def flow(self) -> psutil.Process | None:
        """As `Run.flow`."""
        return None if self.over() else psutil.Process(self._process.pid)

    def over(self) -> bool:
        """As `Run.over`."""
        return self._process.poll() is not None

    def completed(self) -> bool:
        """As `Run.completed`."""
        return self._process.poll() == 0

    def said(self) -> str:
        """As `Run.said`."""
        lines = self._log.read_text(errors="replace").split("\n")
        told = next((line for line in lines if line.startswith("error:")), lines[-2] if lines[1:] else "")
        return f"exit status {self._process.returncode}: {told[:200]}"

    def give_up(self) -> None:
        """As `Run.give_up`."""
        if not self.over():
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class PoolRun:
    """A run of the deployment, by the worker of the pool `gpu`."""

    def __init__(self, stack: Running, parameters: dict[str, Any]) -> None:
        self._stack = stack
        self._worker = stack.pid("gpu-worker")
        self._run = stack.start("forgetting/forgetting", **parameters)
        self._asked = time.monotonic()
        self._flow: psutil.Process | None = None

    def flow(self) -> psutil.Process | None:
        """As `Run.flow`."""
        if self._flow is not None:
            return self._flow if self._flow.is_running() else None
        with suppress(psutil.Error, OSError):
            for process in psutil.Process(self._worker).children():
                if process.environ().get("PREFECT__FLOW_RUN_ID") == str(self._run.id):
                    self._flow = process
        return self._flow

    def over(self) -> bool:
        """As `Run.over`; not while the server cannot say so."""
        state = self._now().state
        return state is not None and state.is_final()

    def completed(self) -> bool:
        """As `Run.completed`."""
        state = self._now().state
        return state is not None and state.is_completed()

    def said(self) -> str:
        """As `Run.said`."""
        return str(self._now().state)[:200]

    def give_up(self) -> None:
        """As `Run.give_up`."""
        with suppress(psutil.NoSuchProcess):
            if (flow := self.flow()) is not None:
                flow.kill()

    def _now(self) -> FlowRun:
        if time.monotonic() - self._asked > ASK_SECONDS:
            with suppress(httpx.HTTPError):
                self._run = self._stack.client.read_flow_run(self._run.id)
            self._asked = time.monotonic()
        return self._run
