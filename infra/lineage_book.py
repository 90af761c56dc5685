"""What one pipeline run has recorded so far: its steps in their order, and which run made which content."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from infra.lineage_records import Produced, StepRecord


class StepBook:
    """The steps of a pipeline run by the id of their child run. May be used from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[str, StepRecord] = {}
        self._open: dict[str, None] = {}
        self._producers: dict[str, str] = {}
        self._raw: set[tuple[str, str]] = set()

    def __getitem__(self, run_id: str) -> StepRecord:
        """Raises `KeyError`."""
        return self._steps[run_id]

    def open(self, record: StepRecord) -> None:
        """A step that began."""
        with self._lock:
            self._steps[record.run_id] = record
            self._open[record.run_id] = None

    def made(self, record: StepRecord) -> None:
        """The outputs of a step are known: inputs with this content lead to the run that produced it."""
        with self._lock:
            self._steps[record.run_id] = record
            for item in record.outputs:
                self._producers.setdefault(item.digest, record.producer_run_id or record.run_id)

    def close(self, run_id: str) -> None:
        """MLflow knows how the step ended."""
        with self._lock:
            self._open.pop(run_id, None)

    @property
    def open_steps(self) -> list[str]:
        """Child runs that were not closed."""
        with self._lock:
            return list(self._open)

    def producer(self, digest: str) -> str | None:
        """The run that produced this content, where a step of this pipeline run has it."""
        return self._producers.get(digest)

    def producers_of(self, inputs: Sequence[Produced]) -> dict[str, str]:
        """{digest: run} of those inputs that a step of this pipeline run has."""
        with self._lock:
            return {item.digest: self._producers[item.digest] for item in inputs if item.digest in self._producers}

    def new_raw(self, inputs: Sequence[Produced], producers: Mapping[str, str]) -> list[Produced]:
        """Inputs that no step produced, each handed out once: they are inputs of the pipeline itself."""
        with self._lock:
            raw = [item for item in inputs if item.digest not in producers]
            raw = [item for item in raw if (item.name, item.digest) not in self._raw]
            self._raw.update((item.name, item.digest) for item in raw)
        return raw

    @property
    def steps(self) -> list[StepRecord]:
        """All so far."""
        with self._lock:
            return list(self._steps.values())

    def as_json(self) -> list[dict[str, Any]]:
        """The steps for `lineage.json`."""
        return [record.as_json() for record in self.steps]
