"""Rows as one reads them: the prompt, and each response token with its influence, its label and its losses."""

from itertools import groupby
from typing import Any

import numpy as np

from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.token_text import TokenText, flowing, visible

ROWS_SHOWN = 20
SHADES = 4
"""Steps of shading on either side of zero influence."""


def shown_rows(split: ScoredSplit, text: TokenText) -> list[dict[str, Any]]:
    """The first rows with response tokens: heading, counts, and `spans` of prompt text or response tokens."""
    response = split.response
    scale = float(np.quantile(np.abs(split.influence[response]), 0.95))
    found: list[dict[str, Any]] = []
    for row, span in enumerate(split.rows.rows()):
        if len(found) == ROWS_SHOWN:
            break
        if not response[span].any():
            continue
        tokens = int(response[span].sum())
        negative = int((split.label[span] == -1).sum())
        found.append(
            {
                "row": row,
                "origin": visible(split.origins[row]),
                "tokens": tokens,
                "negative_tokens": negative,
                "negative_share": negative / tokens,
                "spans": _spans(split, span, text, scale),
            }
        )
    return found


def _spans(split: ScoredSplit, row: slice, text: TokenText, scale: float) -> list[dict[str, Any]]:
    """Runs of tokens: `{"prompt": text}` or `{"tokens": [{"text", "element", "classes", "title"}, …]}`;
    the element is `u`, underlined even without styles, for negative tokens.
    """
    spans: list[dict[str, Any]] = []
    for is_response, run in groupby(range(row.start, row.stop), key=lambda t: bool(split.response[t])):
        if is_response:
            spans.append({"tokens": [_token(split, t, text, scale) for t in run]})
        else:
            spans.append({"prompt": flowing(text.text(split.rows.input_ids[list(run)].tolist()))})
    return spans


def _token(split: ScoredSplit, t: int, text: TokenText, scale: float) -> dict[str, str]:
    token_id, influence, positive = int(split.rows.input_ids[t]), float(split.influence[t]), split.label[t] == 1
    noise = split.noise is not None and bool(split.noise[t])
    lines = [
        f"{text.token_with_spaces(token_id)} (id {token_id})",
        f"base loss {split.loss_base[t]:.3f}, reference loss {split.loss_reference[t]:.3f} nats",
        f"influence {influence:+.3f}: {'positive' if positive else 'negative'}",
    ]
    classes = [shade(influence, scale), "noise" if noise else ""]
    return {
        "text": flowing(text.token(token_id)),
        "element": "span" if positive else "u",
        "classes": " ".join(filter(None, classes)),
        "title": "\n".join([*lines, "planted noise"] if noise else lines),
    }


def shade(influence: float, scale: float) -> str:
    """CSS class: `u1`…`u4` for influence up to `scale` and beyond, `d1`…`d4` below zero, empty near zero."""
    steps = round(SHADES * min(abs(influence) / scale, 1.0)) if scale else 0
    return f"{'u' if influence > 0 else 'd'}{steps}" if steps else ""
