"""Sends the curves of a run's steps to MLflow while they train, and those that earlier runs could not send.

A step only ever appends to its spool (`infra.curve_spool`). One thread per run sends all spools in batches; while
MLflow is down it tries again, less and less often, and goes on where MLflow has last acknowledged. A batch that
MLflow took but could not acknowledge is sent again: MLflow keeps one point of the same run, name, step, time and
value. What is not sent when the run ends stays on disk for the next run with the same folder and tracking URI; so
does how the run ended, when MLflow has not heard of it.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.curve_spool import ABANDONED, PIPELINE, Spool, SpoolError, Target
from infra.lineage_connection import absolute_uri, open_experiment, outages
from infra.lineage_writer import Point, RunWriter
from infra.public import public_text, public_uri
from infra.system_metrics import PREFIX as SYSTEM

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

SECONDS_BETWEEN_BATCHES = 2.0
LONGEST_WAIT = 30.0
"""Seconds between two attempts while MLflow is down."""
POINTS_PER_BATCH = 150
SKIPPED_TAG = "nonfinite_points_skipped"
_REFUSALS = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
_logger = logging.getLogger(__name__)


class CurveSender:
    """The curves of one run. `begin` it, `open` a spool per step; `drain` and `end` once, at the end."""

    def __init__(self, folder: Path, tracking_uri: str, experiment: str, reached: Callable[[], None]) -> None:
        """`reached` is called, in the thread that sends, whenever MLflow has taken something."""
        self._tracking_uri = absolute_uri(tracking_uri)
        self._experiment = experiment
        self._reached = reached
        # credentials may change between two runs
        server = hashlib.sha256(public_uri(self._tracking_uri).encode()).hexdigest()[:16]
        self.folder = folder / server
        """Of this tracking URI's spools."""
        self.outage: str | None = None
        """Why nothing is sent at the moment."""
        self._spools = self._leftovers()
        self._run: Spool | None = None
        """Its lock tells other runs that this one goes on."""
        self._lock = threading.Lock()
        self._writer: RunWriter | None = None
        self._deadline = math.inf
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if self._spools:
            _logger.info("telling MLflow what it has not heard of %d earlier steps and runs", len(self._spools))
            self._start()

    def begin(self, recipe: str, run_id: str) -> None:
        """This process writes the pipeline run `run_id`. Should it die, the next run closes it."""
        try:
            self._run = Spool.create(self.folder, Target(recipe, PIPELINE, "", run_id, None, ""))
        except OSError as error:
            _logger.warning("MLflow will show this run as running should it be killed: %s", error)

    def end(self, status: str, *, recorded: bool) -> None:
        """The pipeline run ended as `status`; unless MLflow has `recorded` that, the next run tells it."""
        if self._run is None:
            return
        if recorded:
            self._run.remove()
            return
        try:
            self._run.end(status)
        except OSError as error:
            _logger.warning("how this run ended is not kept: %s", error)
        self._run.release()
        _logger.warning(
            "MLflow at %s shows this run as running; the next `forgetting run` with this state directory and "
            "tracking URI closes it there",
            public_uri(self._tracking_uri),
        )

    def open(self, target: Target) -> Spool:
        """A spool for one step's curves, sent from now on. Raises `OSError` when it cannot be written."""
        spool = Spool.create(self.folder, target)
        with self._lock:
            self._spools.append(spool)
            if self._thread is None:
                self._start()
        return spool

    def drain(self, seconds: float) -> None:
        """Send the rest, for at most so long; then say what stays on disk. No spool is opened afterwards."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        if self._thread is None:
            return
        self._thread.join(seconds)
        with self._lock:
            left = sum(spool.target.step != PIPELINE for spool in self._spools)
        if left:
            _logger.warning(
                "the curves of %d steps are not in MLflow at %s yet; they are kept in %s, and the next "
                "`forgetting run` with this state directory and tracking URI sends them: %s",
                left,
                public_uri(self._tracking_uri),
                self.folder,
                self.outage or f"not done within {seconds:g} s",
            )

    def _leftovers(self) -> list[Spool]:
        taken = []
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                spool = Spool.take(path)
            except SpoolError as error:
                _logger.warning("curves that cannot be sent: %s", error)
                continue
            if spool is not None:
                taken.append(spool)
        return taken

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._send_until_closed, name="curves", daemon=True)
        self._thread.start()

    def _send_until_closed(self) -> None:
        wait = 0.0
        while time.monotonic() < self._deadline:
            closing = self._closing.is_set()
            try:
                self._send_all()
            except outages() as error:
                self.outage = f"{type(error).__name__}: {public_text(' '.join(str(error).split()))[:500]}"
                _logger.info("curves wait in %s: %s", self.folder, self.outage)
                wait = min(max(1.0, 2 * wait), LONGEST_WAIT)
            else:
                self.outage, wait = None, 0.0
            if closing:
                if self.outage is None:
                    break
                time.sleep(min(1.0, max(0.0, self._deadline - time.monotonic())))
            else:
                self._closing.wait(wait or SECONDS_BETWEEN_BATCHES)
        with self._lock:
            for spool in self._spools:
                spool.release()

    def _send_all(self) -> None:
        """What there is to send of every spool, the oldest first. Raises one of `outages`."""
        with self._lock:
            spools = list(self._spools)
        for spool in spools:
            if self._send(spool):
                with self._lock:
                    self._spools.remove(spool)

    def _send(self, spool: Spool) -> bool:
        """Whether this spool is done with: it is over and all of it sent, or it never will be."""
        from mlflow.exceptions import MlflowException

        try:
            while time.monotonic() < self._deadline:
                batch = spool.unsent(POINTS_PER_BATCH)
                if batch is None:
                    return False
                writer = self._connected()
                run_id = self._run_of(spool, writer)
                self._log(spool.target, run_id, batch.points, writer)
                if batch.points:
                    self._reached()
                skipped = spool.sent.skipped + _nonfinite(batch.points)
                if batch.status is not None:
                    self._finish(spool, run_id, batch.status, skipped, writer)
                    return True
                spool.sent.skipped, spool.sent.offset = skipped, batch.end
                spool.remember()
            return False
        except SpoolError as error:
            _logger.warning("curves that cannot be sent: %s; kept as %s", error, spool.refuse())
            return True
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            aside = spool.refuse()
            _logger.warning("MLflow refuses the curves of %s: %s; kept as %s", spool.target.step, error, aside)
            return True

    def _connected(self) -> RunWriter:
        if self._writer is None:
            client, experiment_id = open_experiment(self._tracking_uri, self._experiment)
            self._writer = RunWriter(client, experiment_id, "")
        return self._writer

    def _run_of(self, spool: Spool, writer: RunWriter) -> str:
        """The step's run; opened here, once, when MLflow was down as the step began."""
        target = spool.target
        if target.run_id is not None:
            return target.run_id
        if spool.sent.run_id is None:
            opened = writer.client.search_runs(
                [writer.experiment_id], f"tags.curves = '{spool.key}'", max_results=1
            )
            if opened:
                spool.sent.run_id = str(opened[0].info.run_id)
            else:
                tags = {
                    "mlflow.parentRunId": target.pipeline_run_id,
                    "recipe": target.recipe,
                    "step": target.step,
                    "fingerprint": target.fingerprint,
                    "cache": "miss",
                    "curves": spool.key,
                }
                spool.sent.run_id = writer.create_run(target.step, tags)
            spool.remember()
        return spool.sent.run_id

    def _log(self, target: Target, run_id: str, points: Sequence[Point], writer: RunWriter) -> None:
        """On the step's run and, with the prefix, on the pipeline run; system metrics would mix there."""
        writer.log_points(run_id, points)
        if target.pipeline_run_id is not None:
            mirrored = [point._replace(metrics=_curves(point.metrics, target.mirror)) for point in points]
            writer.log_points(target.pipeline_run_id, mirrored)

    def _finish(self, spool: Spool, run_id: str, status: str, skipped: int, writer: RunWriter) -> None:
        writer.log(run_id, tags={SKIPPED_TAG: skipped or None})
        if spool.target.run_id is None:
            writer.client.set_terminated(run_id, status)
        if spool.target.step == PIPELINE:
            # of a killed process nobody knows when it ended
            writer.close_tree(run_id, status, None if status == ABANDONED else spool.written)
        spool.remove()


def _curves(metrics: Mapping[str, float], mirror: str) -> dict[str, float]:
    return {f"{mirror}{name}": value for name, value in metrics.items() if not name.startswith(SYSTEM)}


def _nonfinite(points: Sequence[Point]) -> int:
    return sum(not math.isfinite(value) for point in points for value in point.metrics.values())


def _is_refusal(error: "MlflowException") -> bool:
    """The run is unknown or deleted: trying again is no use."""
    return error.error_code in _REFUSALS
