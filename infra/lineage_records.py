"""What lineage knows: named inputs and outputs, the steps of a pipeline run, and which step made which content."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from infra.public import public_data, public_text, public_uri


@dataclass(frozen=True)
class Produced:
    """One named input or output of a step, as lineage sees it."""

    name: str
    """`train`, `token losses`, `checkpoint`"""
    kind: Literal["data", "model"]
    uri: str
    """Absolute: `s3://…`, `https://…` or a file path."""
    digest: str
    """sha256 of the content, 64 hex digits."""
    files: tuple[tuple[str, str], ...] = ()
    """(address, sha256) of the raw files that the digest was made of; empty for what a step produced."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"digest of {self.name!r}: expected 64 hex digits, got {self.digest!r}")

    def public(self) -> "Produced":
        """The same without credentials in its URI; only this is ever recorded."""
        files = tuple((public_uri(address), digest) for address, digest in self.files)
        return replace(self, name=public_text(self.name), uri=public_uri(self.uri), files=files)

    def as_json(self) -> dict[str, Any]:
        """For `lineage.json`."""
        record = asdict(self)
        del record["files"]
        return record | ({"files": dict(self.files)} if self.files else {})


State = Literal["ran", "cached", "running", "failed", "killed"]


@dataclass
class StepRecord:
    """What is known of one step of a pipeline run; `run_id` is its child run."""

    step: str
    run_id: str
    state: State
    fingerprint: str | None
    producer_run_id: str | None
    """The child run that produced a cached step's artifacts."""
    params: dict[str, object]
    inputs: Sequence[Produced]
    producers: dict[str, str]
    """Digest of an input -> the run that produced it, where known."""
    outputs: Sequence[Produced] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def maker_id(self) -> str:
        """The run in which the step's artifacts were computed."""
        return self.producer_run_id or self.run_id

    def as_json(self) -> dict[str, Any]:
        """The step's entry in `lineage.json`."""
        inputs = [{**item.as_json(), "producer_run_id": self.producers.get(item.digest)} for item in self.inputs]
        record: dict[str, Any] = public_data(
            {
                "step": self.step,
                "state": self.state,
                "run_id": self.run_id,
                "producer_run_id": self.producer_run_id,
                "fingerprint": self.fingerprint,
                "seconds": self.seconds,
                "params": self.params,
                "metrics": self.metrics,
            }
        )
        return record | {"inputs": inputs, "outputs": [item.as_json() for item in self.outputs]}


@dataclass(frozen=True)
class Trail:
    """What the notes of one pipeline run tell of, as far as the run has come."""

    experiment_id: str
    run_id: str
    title: str
    """Of the pipeline run."""
    steps: Sequence[StepRecord]
    models: Mapping[str, str]
    """Digest of a model -> its id in MLflow."""

    def maker(self, digest: str) -> StepRecord | None:
        """The step that produced this content; None for a raw input."""
        made = (step for step in self.steps if any(item.digest == digest for item in step.outputs))
        return next(made, None)

    def ancestors(self, digest: str) -> list[StepRecord]:
        """The steps behind this content, the nearest first."""
        found: dict[str, StepRecord] = {}
        queue = [digest]
        for wanted in queue:
            step = self.maker(wanted)
            if step is not None and step.run_id not in found:
                found[step.run_id] = step
                queue += [item.digest for item in step.inputs]
        return [step for step in reversed(self.steps) if step.run_id in found]

    def counts(self) -> str:
        """Such as `6 ran, 8 cached`."""
        states = Counter(step.state for step in self.steps)
        return ", ".join(f"{states[state]} {state}" for state in get_args(State) if states[state])
