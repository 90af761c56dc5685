"""The notes that an auditor reads in MLflow: markdown tables of steps and artifacts with links to the runs.

MLflow's pages show neither tags of models nor producers of datasets, but they render these tables, so they are the
page from which a model is walked back to its data.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from infra.public import public_data, public_text, public_uri

TAG_CHARACTERS = 8000
"""Longest tag; MLflow cuts what is longer without a word."""
DESCRIPTION_CHARACTERS = 5000
"""Longest description of a model version (the width of its column on PostgreSQL)."""

_NOT_VERBATIM = re.compile(r"[`|<>&\\\s]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~])")


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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError(f"digest of {self.name!r}: expected 64 hex digits, got {self.digest!r}")

    def public(self) -> "Produced":
        """The same without credentials in its URI; only this is ever recorded."""
        return replace(self, name=public_text(self.name), uri=public_uri(self.uri))


@dataclass
class StepRecord:
    """What is known of one step of a pipeline run; `run_id` is its child run."""

    step: str
    run_id: str
    state: Literal["running", "ran", "cached", "failed", "killed"]
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

    def as_json(self) -> dict[str, Any]:
        """The step's entry in `lineage.json`."""
        inputs = [{**asdict(item), "producer_run_id": self.producers.get(item.digest)} for item in self.inputs]
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
        return record | {"inputs": inputs, "outputs": [asdict(item) for item in self.outputs]}


def run_path(experiment_id: str, run_id: str) -> str:
    """Address of a run's page within MLflow's UI; without the query it opens the pages for chat applications."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def escape_markdown(text: str) -> str:
    """`text` as one line that renders as itself: no markup, no HTML, no end of a table cell."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def verbatim(text: str) -> str:
    """`text` as a code span when that is safe, so that a URI can be copied; otherwise escaped."""
    return escape_markdown(text) if not text or _NOT_VERBATIM.search(text) else f"`{text}`"


def pipeline_note(title: str, steps: Iterable[StepRecord], experiment_id: str, limit: int = TAG_CHARACTERS) -> str:
    """The lineage table of a pipeline run: a row per artifact of each step, in the order of the steps."""
    rows = []
    for record in steps:
        link = _link(record.step, experiment_id, record.run_id)
        state: str = record.state
        if record.producer_run_id:
            state += f", {_link('produced here', experiment_id, record.producer_run_id)}"
        rows += [(link, state, *_cells(item)) for item in record.outputs] or [(link, state, "", "", "")]
    return _table(title, ("step", "state", "artifact", "digest", "uri"), rows, limit)


def step_note(record: StepRecord, experiment_id: str, pipeline_run_id: str) -> str:
    """The note of one step's run: what went in, what came out, and which runs to look at next."""
    title = f"Step {escape_markdown(record.step)} of {_link('this pipeline run', experiment_id, pipeline_run_id)}"
    if record.producer_run_id:
        title += f"; cached, {_link('produced by this run', experiment_id, record.producer_run_id)}"
    rows = []
    for item in record.inputs:
        producer = record.producers.get(item.digest)
        rows.append(("input", *_cells(item), _link("producer", experiment_id, producer) if producer else ""))
    rows += [("output", *_cells(item), "") for item in record.outputs]
    return _table(title, ("", "artifact", "digest", "uri", "link"), rows, TAG_CHARACTERS)


def _cells(item: Produced) -> tuple[str, str, str]:
    return escape_markdown(item.name), verbatim(item.digest[:12]), verbatim(item.uri)


def _link(text: str, experiment_id: str, run_id: str) -> str:
    return f"[{escape_markdown(text)}]({run_path(experiment_id, run_id)})"


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], limit: int) -> str:
    """Rows that would pass `limit` characters are counted in a last line instead."""
    text = "\n".join([title, "", _line(head), _line(["---"] * len(head))])
    for done, row in enumerate(rows):
        rest = f"\n\n{len(rows) - done} more rows are in lineage.json."
        line = "\n" + _line(row)
        if len(text) + len(line) + len(rest) > limit:
            return text + rest
        text += line
    return text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
