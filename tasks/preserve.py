"""Keeps a training's checkpoints in the store while it goes on, and brings the newest back before it begins.

The training only writes local files and says so. Each checkpoint is held by hard links and copied by a thread of
this process, so the training never waits; one waits at most, and the next takes its place.
"""

import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.objects import StoreError
from infra.training_checkpoints import TrainingCheckpoints

logger = logging.getLogger(__name__)


class Preserved:
    """Used as `with Preserved(…) as preserved` around a training that works in the folder `work`."""

    def __init__(self, label: str, checkpoints: TrainingCheckpoints, work: Path) -> None:
        self._label = label
        self._checkpoints = checkpoints
        self._work = work
        self._held = work.with_name("held")
        self._uploader = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._waiting: tuple[int, Path] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Preserved":
        shutil.rmtree(self._held, ignore_errors=True)  # of a run that was killed
        self._bring_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A training that ended early waits until its last checkpoint is in the store."""
        if kind is None:
            self._take_waiting()
        self._uploader.shutdown()
        shutil.rmtree(self._held, ignore_errors=True)

    def __call__(self, message: dict[str, Any]) -> None:
        """The training's message that `message["folder"]` holds a checkpoint after `message["step"]` steps."""
        step, source = int(message["step"]), Path(message["folder"])
        target = self._held / source.name
        try:
            shutil.copytree(source, target, copy_function=_link)
        except OSError as error:
            if source.exists():  # else the training has replaced it already, by one that it will tell of
                self._warn(step, error)
            return
        older = self._take_waiting((step, target))
        if older is not None:
            shutil.rmtree(older[1], ignore_errors=True)
        self._uploader.submit(self._upload_waiting)

    def _take_waiting(self, instead: "tuple[int, Path] | None" = None) -> "tuple[int, Path] | None":
        with self._lock:
            taken, self._waiting = self._waiting, instead
        return taken

    def _upload_waiting(self) -> None:
        waiting = self._take_waiting()
        if waiting is None:
            return
        step, folder = waiting
        try:
            self._checkpoints.keep(folder, step)
        except StoreError as error:
            self._warn(step, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _warn(self, step: int, error: Exception) -> None:
        logger.warning("%s: the checkpoint after step %d stays on this host only: %s", self._label, step, error)

    def _bring_back(self) -> None:
        """Put the store's checkpoint where the training looks for one, unless it has a newer one of its own."""
        kept = self._checkpoints.newest()
        own = [int(path.name.removeprefix("step-")) for path in self._work.glob("step-*")]
        if kept is None or kept.optimizer_step <= max(own, default=0):
            return
        fetched = self._checkpoints.fetch(kept, self._work / "fetched")
        if fetched is None:
            logger.warning("%s: the store's checkpoint after step %d is gone", self._label, kept.optimizer_step)
            return
        logger.info("%s: goes on from the store's checkpoint after step %d", self._label, kept.optimizer_step)
        self._work.mkdir(parents=True, exist_ok=True)
        part = self._work / "fetched.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(fetched, part)
        part.rename(self._work / f"step-{kept.optimizer_step}")
        shutil.rmtree(self._work / "fetched", ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # not every file system has links
        shutil.copyfile(source, target)
