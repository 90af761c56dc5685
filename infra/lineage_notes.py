"""The notes that an auditor reads in MLflow: markdown tables of steps and artifacts with links to runs and models.

MLflow's pages show neither tags of models nor producers of datasets, but they render these tables, so they are the
pages on which a model is walked back to its data. A run's page shows a few lines until one asks for more: whatever
leads on comes first.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from infra.lineage_records import Produced, StepRecord, Trail

TAG_CHARACTERS = 8000
"""Longest tag; MLflow cuts what is longer without a word."""
DESCRIPTION_CHARACTERS = 5000
"""Longest description of a model version (the width of its column on PostgreSQL)."""
_RAW_ROWS = 12
_GAP = "&ensp;"  # MLflow shows tables without any space between the columns
_ROW_NOTE = "\n\n{} more in lineage.json of the pipeline run."

_NOT_VERBATIM = re.compile(r"[`|<>&\\\s]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~])")


def run_path(experiment_id: str, run_id: str) -> str:
    """Address of a run's page within MLflow's UI; without the query it opens the pages for chat applications."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def model_path(experiment_id: str, model_id: str) -> str:
    """Address of the page of a model that a run has logged."""
    return f"#/experiments/{experiment_id}/models/{model_id}?workflowType=machine_learning"


def version_path(name: str, version: str) -> str:
    """Address of the page of a registered model's version."""
    return f"#/models/{quote(name)}/versions/{version}?workflowType=machine_learning"


def escape_markdown(text: str) -> str:
    """`text` as one line that renders as itself: no markup, no HTML, no end of a table cell."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def verbatim(text: str) -> str:
    """`text` as a code span when that is safe, so that a URI can be copied; otherwise escaped."""
    return escape_markdown(text) if not text or _NOT_VERBATIM.search(text) else f"`{text}`"


def pipeline_note(trail: Trail, links: Iterable[str] = (), limit: int = TAG_CHARACTERS) -> str:
    """The note of a pipeline run: `links` (markdown) of what to look at, the raw inputs, and a row per step."""
    title = " · ".join([f"**{escape_markdown(trail.title)}**", trail.counts() or "no step yet", *links])
    rows = []
    for step in trail.steps:
        state: str = step.state
        if step.producer_run_id:
            state += f", {_link('made by this run', run_path(trail.experiment_id, step.producer_run_id))}"
        rows.append((_step_link(trail, step.step, step.run_id), state, *_made(trail, step)))
    raw = _raw_lines(trail, trail.steps)
    return _join(
        [title, raw, _table(("step", "state", "wrote", "digest"), rows, limit - len(title) - len(raw) - 4)]
    )


def step_note(trail: Trail, record: StepRecord) -> str:
    """The note of one step's run: what went in, what came out, and where to look next."""
    of_run = _step_link(trail, trail.title, trail.run_id)
    title = f"Step **{escape_markdown(record.step)}** of pipeline run {of_run}"
    if record.producer_run_id:
        title += f"; cached, {_step_link(trail, 'made by this run', record.producer_run_id)}"
    raw = _raw_lines(trail, [record])
    rows = [("input", _named(trail, item, record), *_place(item)) for item in record.inputs]
    rows += [("output", _named(trail, item), *_place(item)) for item in record.outputs]
    limit = TAG_CHARACTERS - len(title) - len(raw) - 4
    return _join([title, raw, _table(("", "artifact", "digest", "address"), rows, limit)])


def model_note(trail: Trail, item: Produced, limit: int = TAG_CHARACTERS) -> str:
    """The note of a model: the steps behind it, the nearest first, and the raw inputs that all of it came from."""
    steps = trail.ancestors(item.digest)
    of_run = _step_link(trail, trail.title, trail.run_id)
    if not steps:
        files = [(escape_markdown(item.name), verbatim(digest), verbatim(place)) for place, digest in item.files]
        title = f"A model that {of_run} was given: {verbatim(item.uri)}, content digest {verbatim(item.digest)}"
        return _join([title, _table(("model", "sha256", "file"), files, limit - len(title) - 2)])
    title = f"Made by step {_step_link(trail, steps[0].step, steps[0].maker_id)} of pipeline run {of_run}"
    rows = [
        (
            _step_link(trail, step.step, step.maker_id),
            *_made(trail, step),
            ", ".join(_named(trail, read, step) for read in step.inputs),
        )
        for step in steps
    ]
    raw = _raw_lines(trail, steps)
    return _join([title, _table(("step", "made", "digest", "from"), rows, limit - len(title) - len(raw) - 4), raw])


def _place(item: Produced) -> tuple[str, str]:
    return verbatim(item.digest[:12]), verbatim(item.uri)


def _made(trail: Trail, step: StepRecord) -> tuple[str, str]:
    names = ", ".join(_named(trail, item) for item in step.outputs)
    return names, ", ".join(verbatim(item.digest[:12]) for item in step.outputs)


def _named(trail: Trail, item: Produced, reader: StepRecord | None = None) -> str:
    """`item`, linked to its own page if it is a model, else to the run that made it for `reader`."""
    maker = trail.maker(item.digest)
    made = next(output.name for output in maker.outputs if output.digest == item.digest) if maker else item.name
    name = f"{maker.step} {made}" if maker and made != maker.step else made
    if item.kind == "model" and item.digest in trail.models:
        return _link(name, model_path(trail.experiment_id, trail.models[item.digest]))
    producer = reader.producers.get(item.digest) if reader else None
    return _step_link(trail, name, producer) if producer else escape_markdown(name)


def _raw_lines(trail: Trail, steps: Sequence[StepRecord]) -> str:
    """`_raw_rows` as a list, of which a page that shows a few lines shows more than of a table."""
    rows = list(dict.fromkeys(row for step in steps for row in _raw_rows(trail, step)))
    lines = [f"- raw {name}: {digest} {address}" for name, digest, address in rows[:_RAW_ROWS]]
    return "\n".join(lines) + (_ROW_NOTE.format(len(rows) - _RAW_ROWS) if len(rows) > _RAW_ROWS else "")


def _raw_rows(trail: Trail, step: StepRecord) -> Iterator[tuple[str, str, str]]:
    """What a step read and no step made; of one that read nothing at all (synthetic data), what it made."""
    for item in step.inputs if step.inputs else step.outputs:
        if step.inputs and item.digest in step.producers:
            continue
        name = _named(trail, item, step)
        if item.kind == "data" and item.files:
            yield from ((name, verbatim(digest), verbatim(address)) for address, digest in item.files)
        else:
            yield f"{name} (content)", verbatim(item.digest), verbatim(item.uri)


def _step_link(trail: Trail, text: str, run_id: str) -> str:
    return _link(text, run_path(trail.experiment_id, run_id))


def _link(text: str, path: str) -> str:
    return f"[{escape_markdown(text)}]({path})"


def _join(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], limit: int) -> str:
    """Rows that would pass `limit` characters are counted in a last line instead."""
    if not rows:
        return ""
    text = _head(*head)
    for done, row in enumerate(rows):
        rest = _ROW_NOTE.format(len(rows) - done)
        line = "\n" + _line(row)
        if len(text) + len(line) + len(rest) > limit:
            return text + rest
        text += line
    return text


def _head(*cells: str) -> str:
    return f"{_line(cells)}\n|{' --- |' * len(cells)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {f'{_GAP} | '.join(cells)} |"
