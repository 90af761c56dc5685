"""Names and texts from elsewhere, where people read them: they are shown, and do nothing."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from markdown_it import MarkdownIt
from prefect.client.schemas.objects import FlowRun

from flows.pool_group import _table
from forgetting_core.data.formats import recognise
from forgetting_core.data.rows import read_rows
from forgetting_core.errors import InputError
from forgetting_core.export import Lineage, write_card
from infra.lineage_notes import pipeline_note
from infra.lineage_records import StepRecord, Trail
from tests.lineage import produced

pytestmark = pytest.mark.security("markup in reports, in MLflow and in the terminal")
HOSTILE = "x|y\n<script>alert(1)</script><img src=x onerror=alert(2)> [click](javascript:alert(3)) `tick`"


def assert_harmless(markdown: str) -> None:
    """A reader of Markdown that lets everything through finds no HTML, no picture, and no link of theirs."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    reader.validateLink = lambda url: True  # type: ignore[method-assign]
    tokens = [inner for token in reader.parse(markdown) for inner in (token, *(token.children or ()))]
    assert not [token for token in tokens if token.type in ("html_inline", "html_block", "image")]
    assert not [token.attrs["href"] for token in tokens if "javascript" in str(token.attrs.get("href"))]
    assert "alert(3)" in "".join(token.content for token in tokens), "what was named is shown"


def test_a_run_of_a_sweep_cannot_put_markup_into_prefects_page() -> None:
    run = SimpleNamespace(name=HOSTILE, state=None, id="0" * 32)
    table = _table({HOSTILE: cast(FlowRun, run)}, "ρ")
    assert_harmless(table)
    assert len(table.splitlines()) == 3


def test_a_recipe_or_a_benchmark_cannot_put_markup_into_mlflows_page() -> None:
    item = produced(HOSTILE, uri=HOSTILE)
    step = StepRecord(HOSTILE, "r" * 32, "ran", None, None, {}, [item], {}, outputs=[item])
    assert_harmless(pipeline_note(Trail("1", "r" * 32, HOSTILE, [step], {})))


def test_a_path_cannot_put_markup_into_a_model_card(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "name": "model",
        "base": HOSTILE,
        "base_digest": "d",
        "data": [(HOSTILE, HOSTILE, "d")],
    }
    write_card(tmp_path, Lineage(**fields, chain=[], partition={HOSTILE: HOSTILE}, training={}))
    assert_harmless((tmp_path / "README.md").read_text())


@pytest.mark.parametrize("name", ["\x1b[2J\x1b]0;title\x07", "\u202etxt.exe", "\x9b31m", "\r\x08"])
def test_a_field_of_a_row_cannot_steer_the_terminal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({name: name, "prompt": "a"}) + "\n")
    with pytest.raises(InputError) as caught:
        recognise(next(read_rows(path)))
    assert not set(str(caught.value)) & set(name) - set("[]2J0;title31mtxt.exe")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value), "it comes back from a step's process"
