"""The other side of the process boundary: a step's computation and the progress it reports."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetting_core.config import ExecutionConfig
from forgetting_core.errors import memory_errors
from forgetting_core.progress import Progress
from infra.launch import Channel, Message

if TYPE_CHECKING:
    from forgetting_core.run_facts import RunFacts

Summary = dict[str, Any]
SECONDS_BETWEEN_REPORTS = 0.2


@dataclass(frozen=True)
class Job:
    """All that a computation gets: configs, local inputs, and where to write."""

    compute: "Callable[[Job, Progress], Summary]"
    config: dict[str, Any]
    """Sub-configs by their place in the recipe"""
    inputs: dict[str, tuple[Path, ...]]
    digests: dict[str, str]
    out: Path
    work: Path
    execution: ExecutionConfig
    facts: "RunFacts | None" = None
    """About the run, for a step that asks; no part of its identity."""

    def path(self, name: str) -> Path:
        """The one folder of the input `name`."""
        (path,) = self.inputs[name]
        return path

    def files(self, name: str) -> list[Path]:
        """The files of the input `name`: as listed in the recipe, or all of a folder, sorted."""
        paths = self.inputs[name]
        return sorted(paths[0].iterdir()) if len(paths) == 1 and paths[0].is_dir() else list(paths)

    def optional(self, name: str) -> Path | None:
        """The folder of the input `name`, if the step has it."""
        return self.path(name) if name in self.inputs else None


class ReportedProgress(Progress):
    """Sends progress to whoever waits for the step, a few times a second at most."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send
        self._last_report = 0.0

    def advance(self, done: float, total: float, unit: str) -> None:
        """See `Progress.advance`."""
        now = time.monotonic()
        if done >= total or now - self._last_report >= SECONDS_BETWEEN_REPORTS:
            self._last_report = now
            self._send({"kind": "advance", "done": done, "total": total, "unit": unit})
        super().advance(done, total, unit)

    def log(self, step: int, metrics: dict[str, float], milliseconds: int) -> None:
        """See `Progress.log`."""
        self._send({"kind": "log", "step": step, "metrics": metrics, "milliseconds": milliseconds})

    def saved(self, step: int, folder: Path) -> None:
        """See `Progress.saved`."""
        self._send({"kind": "checkpoint", "step": step, "folder": str(folder)})

    def note(self, message: str) -> None:
        """See `Progress.note`."""
        self._send({"kind": "note", "message": message})


class ChannelProgress(ReportedProgress):
    """The progress of a computation in this process."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel.send)
        self._channel = channel

    def advance(self, done: float, total: float, unit: str) -> None:
        """See `Progress.advance`."""
        self.stop_requested = self._channel.stop_requested
        super().advance(done, total, unit)


def run_job(job: Job, channel: Channel) -> Summary:
    """The target of `Launcher.run`."""
    use_own_gpu(channel.slot)
    return compute(job, ChannelProgress(channel))


def use_own_gpu(slot: int) -> None:
    """Leave this process one GPU of several, so that steps computed side by side do not share one.

    To be called before CUDA is first used.
    """
    import torch

    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = listed.split(",") if listed else [str(index) for index in range(torch.cuda.device_count())]
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]


def compute(job: Job, progress: Progress) -> Summary:
    """`job.compute`. Raises what it raises, and `OutOfMemoryError` for all ways in which torch says so."""
    with memory_errors():
        return job.compute(job, progress)
