"""Rows as data that the page's script browses: compact, since the page holds hundreds of them.

The text in it is that of the training data and therefore hostile: it is made visible here, escaped for a `<script>`
element, and the script only ever sets it as text.
"""

import json
from typing import Any

import numpy as np
from markupsafe import Markup

from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.token_text import TokenText, flowing, visible
from forgetting_core.report.token_view import SHADES, heading, influence_scale, prompt_text, runs, shade_step

ROWS_EMBEDDED = 200
ROW_TOKENS = 800
"""Response tokens kept of a row: some 15 bytes each, so that 200 long rows stay well under 5 MB."""
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
"""What could end the element or the line it stands in; in JSON these only occur inside strings."""


def choose_rows(split: ScoredSplit) -> list[int]:
    """At most `ROWS_EMBEDDED` rows that have response tokens, spread evenly over the split, in its order."""
    rows = np.unique(split.row_of_token()[split.response])
    wanted = min(ROWS_EMBEDDED, len(rows))
    return [int(row) for row in rows[np.arange(wanted) * len(rows) // wanted]]


def row_data(split: ScoredSplit, text: TokenText, chosen: list[int]) -> dict[str, Any]:
    """`{"vocabulary": [[id, text in a row, text alone], …], "rows": […]}`.

    A row is its `heading`, its `source` and `spans`: the text of a prompt, or lists that run along the tokens of
    a response: `token` (place in the vocabulary), `base` and `reference` (losses in thousandths of a nat); and
    strings with a digit for each: `shade` (influence 0 … 8, 4 is none), `negative`, and `noise` where it is known.
    """
    scale = influence_scale(split)
    places: dict[int, int] = {}
    rows = [
        heading(split, row, ROW_TOKENS)
        | {
            "source": visible(split.sources[row]),
            "spans": [
                _response(split, np.array(run), places, scale) if is_response else prompt_text(split, run, text)
                for is_response, run in runs(split, row, ROW_TOKENS)
            ],
        }
        for row in chosen
    ]
    vocabulary = [[i, flowing(text.token(i)), text.token_with_spaces(i)] for i in places]
    return {"vocabulary": vocabulary, "rows": rows}


def _response(split: ScoredSplit, run: np.ndarray, places: dict[int, int], scale: float) -> dict[str, Any]:
    span = {
        "token": [places.setdefault(int(i), len(places)) for i in split.rows.input_ids[run]],
        "base": _thousandths(split.loss_base[run]),
        "reference": _thousandths(split.loss_reference[run]),
        "shade": "".join(str(shade_step(float(value), scale) + SHADES) for value in split.influence[run]),
        "negative": _digits(split.label[run] == -1),
    }
    return span if split.noise is None else span | {"noise": _digits(split.noise[run])}


def _thousandths(values: np.ndarray) -> list[int]:
    return [int(value) for value in np.rint(values.astype(np.float64) * 1000)]


def _digits(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def json_for_script(data: dict[str, Any]) -> Markup:
    """JSON that is safe inside `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))
