"""Keeps a training's checkpoints in the store while it goes on, and brings the newest back before it begins.

The training only writes local files and says so. Each checkpoint is held by hard links and copied by a thread of
this process, so the training never waits; one that is older than another that waits is left out.
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
        self._newest = 0
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
            with self._lock:
                self._newest = -1
        self._uploader.shutdown()
        shutil.rmtree(self._held, ignore_errors=True)

    def __call__(self, message: dict[str, Any]) -> None:
        """The training's message that `message["folder"]` holds a checkpoint after `message["step"]` steps."""
        step, source = int(message["step"]), Path(message["folder"])
        target = self._held / source.name
        try:
            shutil.copytree(source, target, copy_function=os.link)
        except (FileNotFoundError, shutil.Error):
            return  # the training has replaced it already, by one that it will tell of
        with self._lock:
            self._newest = step
        self._uploader.submit(self._upload, target, step)

    def _upload(self, folder: Path, step: int) -> None:
        with self._lock:
            outdated = step != self._newest
        try:
            if not outdated:
                self._checkpoints.keep(folder, step)
        except StoreError as error:
            logger.warning("%s: the checkpoint after step %d stays on this host only: %s", self._label, step, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _bring_back(self) -> None:
        """Put the store's checkpoint where the training looks for one, unless it has a newer one of its own."""
        kept = self._checkpoints.newest()
        own = [int(path.name.removeprefix("step-")) for path in self._work.glob("step-*")]
        if kept is None or kept.optimizer_step <= max(own, default=0):
            return
        fetched = self._checkpoints.fetch(kept, self._work / "fetched")
        if fetched is None:
            return
        logger.info("%s: goes on from the store's checkpoint after step %d", self._label, kept.optimizer_step)
        self._work.mkdir(parents=True, exist_ok=True)
        part = self._work / "fetched.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(fetched, part)
        part.rename(self._work / f"step-{kept.optimizer_step}")
        shutil.rmtree(self._work / "fetched", ignore_errors=True)
