"""The curves of a training as a file that is stored with the checkpoint: what was told of it, and when.

It is written before anybody hears of a step, and goes on where a resumed training does. So whoever listens to the
attempt that completes has heard exactly what the file says, whatever was lost on the way can be told again from it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from forgetting_core.progress import Progress, now

METRICS_FILE = "metrics.jsonl"
"""Of `aux/`: a line per optimizer step with `step` (from 1), `milliseconds` (since the epoch), and its values.

A line of step 0 comes first where something was measured before the training.
"""
CURVES = "train/"
"""Put before the names of the values where others hear of them; those with a part of their own keep it."""

NEGATIVE_LOSS = "loss_negative"
"""Mean loss of the step's negative tokens, in nats; of steps that forget."""
VALIDATION_LOSS = "validation/loss"
"""Mean held-out loss after the step, in nats per response token; only of steps at which it was measured."""
VALIDATION_CHANGE = "validation/loss_change"
"""What it is above the first measurement, before any step; of all later ones."""
VALIDATION_CHANGE_STDERR = "validation/loss_change_stderr"
"""Its standard error, paired by row as the rows are the same; absent with a single row."""


def curves_of(values: Mapping[str, float]) -> dict[str, float]:
    """The values of a line by the names that others hear."""
    return {name if "/" in name else f"{CURVES}{name}": value for name, value in values.items()}


class MetricsFile:
    """`metrics.jsonl` in the making. Used as `with MetricsFile(…) as metrics_file`."""

    def __init__(self, path: Path, progress: Progress, *, resumed: bool) -> None:
        """Go on with the file of a checkpoint if the training is `resumed`, else with an empty one.

        The steps in it are told to `progress` again as of when they were: this attempt is a run of its own to it.
        """
        self.last: dict[str, Any] = {}
        """The values of the last step."""
        self.negative_losses: list[float] = []
        """Of all steps that had any, nats."""
        self._progress = progress
        self._path = path
        self._file = path.open("a+b" if resumed else "wb")
        if resumed:
            self._file.seek(0)
            for line in self._file:
                self._tell(json.loads(line))

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Optimizer step `step` is done; 0 before the first."""
        record = {"step": step, "milliseconds": now(), **values}
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        self._tell(record)

    def sync(self) -> Path:
        """The file, on the disk with all that was logged: to be called before a checkpoint is written."""
        os.fsync(self._file.fileno())
        return self._path

    def _tell(self, record: dict[str, Any]) -> None:
        self.last = {name: value for name, value in record.items() if name not in ("step", "milliseconds")}
        if NEGATIVE_LOSS in record:
            self.negative_losses.append(record[NEGATIVE_LOSS])
        self._progress.log(record["step"], curves_of(self.last), record["milliseconds"])
