"""The parent's view of one running step: messages go to whoever watches, curves to the step's spool."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from infra.curve_spool import Spool, Target
from infra.lineage_writer import Point
from infra.system_metrics import SystemMetrics
from tasks.context import RunContext
from tasks.progress_artifact import StepProgress
from tasks.records import mirror_of
from tasks.spec import StepCall

logger = logging.getLogger(__name__)


class Watch:
    """Hears the messages of a step's process, in the thread that waits for it. Used as `with Watch(…) as watch`."""

    def __init__(self, context: RunContext, call: StepCall, fingerprint: str, run_id: str | None) -> None:
        self.started = datetime.now(UTC)
        """When computing began; waiting for a slot does not count."""
        self._context = context
        self._call = call
        self._fingerprint = fingerprint
        self._run_id = run_id
        self._spool: Spool | None = None
        self._spooling = True
        self._computing = False
        self.on_checkpoint: Callable[[dict[str, Any]], None] = lambda message: None
        """Told of every training checkpoint."""
        self._lock = threading.Lock()
        """Held while a point is kept: the machine is sampled in another thread."""
        self._held: list[Point] = []
        """System metrics of a step without a run in MLflow; only curves are worth opening one later."""
        self._system_metrics = SystemMetrics(self._keep_sample)
        self._progress = StepProgress(call.label)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The computation is over, or has failed."""
        self._system_metrics.stop()
        self._progress.close()
        if self._spool is not None and self._spooling:
            try:
                self._spool.end("FINISHED" if kind is None else "FAILED")
            except OSError as failure:
                self._warn(failure)

    def __call__(self, message: dict[str, Any]) -> None:
        """One message of `infra.launch.Launcher.run`."""
        if message["kind"] == "start" and not self._computing:  # it starts again when memory has run out
            self._computing = True
            self.started = datetime.now(UTC)
            self._system_metrics.start()
        if message["kind"] == "log":
            with self._lock:
                self._keep(Point(message["step"], message["metrics"], message["milliseconds"]))
        if message["kind"] == "advance":
            self._progress(message)
        if message["kind"] == "checkpoint":
            self.on_checkpoint(message)
        else:
            self._context.listener(self._call.label, message)

    def _keep_sample(self, point: Point) -> None:
        with self._lock:
            if self._spool is None and self._run_id is None:
                self._held.append(point)
            else:
                self._keep(point)

    def _keep(self, point: Point) -> None:
        if not self._spooling:
            return
        try:
            if self._spool is None:
                self._spool = self._open()
            for kept in (*self._held, point):
                self._spool.append(kept)
            self._held.clear()
        except OSError as failure:
            self._warn(failure)

    def _open(self) -> Spool:
        return self._context.curves.open(
            Target(
                recipe=self._context.recipe.name,
                step=self._call.label,
                fingerprint=self._fingerprint,
                run_id=self._run_id,
                pipeline_run_id=self._context.lineage.run_id,
                mirror=mirror_of(self._call),
            )
        )

    def _warn(self, failure: OSError) -> None:
        """A full disk costs the rest of the curves, not the training."""
        self._spooling = False
        logger.warning("%s: no further curves, their spool cannot be written: %s", self._call.label, failure)
