"""What the machine does while a step computes: processors, memory and GPUs, as MLflow's "System metrics" show them.

The monitors are MLflow's own. What runs them there is not used: it asks the server before every sample, and stops
for good when there is no answer. They measure the whole machine, as their names mean everywhere in MLflow: steps
that compute side by side see the same.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from infra.lineage_writer import Point

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

PREFIX = "system/"
"""Of the metrics that MLflow shows on a page of their own."""
INTERVAL_SECONDS = 10.0


class SystemMetrics:
    """Samples in a thread between `start` and `stop`, at least once."""

    def __init__(self, sampled: Callable[[Point], None], interval: float = INTERVAL_SECONDS) -> None:
        """`sampled` is called, in that thread, with every point; they are counted from 0."""
        self._sampled = sampled
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)

    def start(self) -> None:
        """Begin the first interval."""
        self._thread.start()

    def stop(self) -> None:
        """No further points, once this returns. May be called without `start`."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _sample(self) -> None:
        monitors = _monitors()
        _read(monitors)  # the use of processors is counted from the reading before, in the same thread
        step = 0
        while not self._over.wait(self._interval) or step == 0:
            self._sampled(Point(step, _read(monitors), int(time.time() * 1000)))
            step += 1


def _monitors() -> "list[BaseMetricsMonitor]":
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    # it warns at every sample of what a card does not tell
    logging.getLogger(GPUMonitor.__module__).setLevel(logging.ERROR)
    monitors: list[BaseMetricsMonitor] = [CPUMonitor()]
    with suppress(RuntimeError):  # no NVIDIA card, or no driver
        monitors.append(GPUMonitor())
    return monitors


def _read(monitors: "list[BaseMetricsMonitor]") -> dict[str, float]:
    values: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        values |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return values
