"""The rows that the report's script browses: which, how much of them, and that hostile text stays text."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetting_core.config import Recipe
from forgetting_core.report.page import render_page
from forgetting_core.report.row_data import ROW_TOKENS, ROWS_EMBEDDED, choose_rows, json_for_script, row_data
from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.statistics import count_everything
from forgetting_core.report.token_text import TokenText
from forgetting_core.report.token_view import STATIC_TOKENS, static_rows
from forgetting_core.run_facts import RunFacts
from forgetting_core.tables import IGNORE_INDEX, TokenRows
from tests.tiny import byte_tokenizer
from tests.unit.forgetting_core.test_report import make_inputs

DATA = re.compile(r'<script type="application/json" id="row-data">(.*?)</script>', re.DOTALL)
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def text() -> TokenText:
    return TokenText(byte_tokenizer())


def make_split(rows: list[tuple[int, int]], vocabulary: int = 256) -> ScoredSplit:
    """Rows of (prompt tokens, response tokens) with random labels; ids and losses are spread as in real text."""
    random = np.random.default_rng(5)
    response = np.concatenate([np.arange(prompt + length) >= prompt for prompt, length in rows])
    input_ids = (random.zipf(1.2, len(response)) % vocabulary).astype(np.int32)
    base = np.where(response, random.gamma(1.5, 2, len(response)), np.nan).astype(np.float32)
    reference = (base * 0.5).astype(np.float32)
    label = np.where(response, random.choice([-1, 1], len(response)), 0).astype(np.int8)
    offsets = np.cumsum([0, *(prompt + length for prompt, length in rows)])
    tokens = TokenRows(input_ids, np.where(response, input_ids, IGNORE_INDEX).astype(np.int32), offsets)
    names = [f"{HOSTILE}{row % 3}" for row in range(len(rows))]
    return ScoredSplit(tokens, base, reference, base - reference, label, label == 1, names, names)


def test_rows_are_spread_evenly_and_have_a_response() -> None:
    rows = choose_rows(make_split([(1, row % 2) for row in range(1000)]))
    assert rows == [2 * int(place * 2.5) + 1 for place in range(ROWS_EMBEDDED)]
    assert choose_rows(make_split([(1, 0), (1, 2), (1, 1)])) == [1, 2]


def test_data_tells_every_token(text: TokenText) -> None:
    split = make_split([(2, 5)])
    data = row_data(split, text, [0])
    prompt, span = data["rows"][0]["spans"]
    assert prompt.isprintable()
    assert [data["vocabulary"][place][0] for place in span["token"]] == split.rows.input_ids[2:].tolist()
    assert np.array(span["base"]) / 1000 == pytest.approx(split.loss_base[2:], abs=6e-4)
    assert np.array(span["reference"]) / 1000 == pytest.approx(split.loss_reference[2:], abs=6e-4)
    assert span["negative"] == "".join("1" if sign < 0 else "0" for sign in split.label[2:])
    assert span["noise"] == "".join("1" if sign > 0 else "0" for sign in split.label[2:])
    assert max(span["shade"]) == "8" and min(span["shade"]) >= "4"


def test_long_responses_are_cut_and_the_cut_is_told(text: TokenText) -> None:
    split = make_split([(3, ROW_TOKENS + 1), (3, ROW_TOKENS)])
    cut, whole = row_data(split, text, [0, 1])["rows"]
    assert (cut["tokens"], cut["shown_tokens"], len(cut["spans"][1]["token"])) == (801, 800, 800)
    assert whole["tokens"] == whole["shown_tokens"] == 800
    assert cut["negative_tokens"] == (split.label[: ROW_TOKENS + 4] == -1).sum()
    static = static_rows(split, text, [0])[0]
    assert static["shown_tokens"] == len(static["spans"][1]["tokens"]) == STATIC_TOKENS


def test_long_prompts_show_both_ends(text: TokenText) -> None:
    split = make_split([(256, 1), (1257, 1)])
    whole, cut = (row["spans"][0] for row in row_data(split, text, [0, 1])["rows"])
    assert "not shown" not in whole
    assert "\n[… 1,001 tokens of the prompt are not shown …]\n" in cut


def test_data_cannot_leave_its_element() -> None:
    data = {"text": HOSTILE + "<!--&\u2028\u2029\"'\\"}
    escaped = json_for_script(data)
    assert not set(escaped) & set("<>&\u2028\u2029")
    assert json.loads(escaped) == data


def test_two_hundred_long_rows_stay_under_five_megabytes(text: TokenText) -> None:
    split = make_split([(248, 1800)] * 220, vocabulary=49152)
    statistics = count_everything(split, text.token_class)
    statistics |= {"benchmarks": [], "frequent": {"positive": [], "negative": []}}
    recipe = Recipe.model_validate(
        {
            "name": "long-rows",
            "model": {"path": "model"},
            "data": {"train": ["rows.jsonl"]},
            "partition": {"rho": "0.7"},
        }
    )
    page = render_page(recipe, statistics, {}, RunFacts(), {}, [], split, text)
    found = DATA.search(page)
    assert found and len(json.loads(found[1])["rows"]) == ROWS_EMBEDDED
    assert len(page.encode()) < 5_000_000


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_inputs(folder).write(folder / "out")
    return folder / "out" / "report.html"


def test_page_allows_its_own_script_and_no_other(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="row-data"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in html
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", html)


def test_page_holds_every_row_with_a_response(page: Path) -> None:
    found = DATA.search(page.read_text(encoding="utf-8"))
    assert found
    data: dict[str, Any] = json.loads(found[1])
    assert [row["row"] for row in data["rows"]] == list(range(1, 30))
    assert {row["source"] for row in data["rows"]} == {"<b>alpaca</b>", "rows.jsonl"}
    shown = {shown for _, _, shown in data["vocabulary"]}
    assert {"<script>alert(1)</script>", "␀␛[31m", "\"'><img␣src=x␣onerror=alert(1)>", "a⟨U+202E⟩b"} <= shown
