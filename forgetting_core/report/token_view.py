"""Rows as one reads them: the prompt, and each response token with its influence, its label and its losses.

The rows of the page itself, which need no script; `row_data` has what the script browses.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.token_text import TokenText, flowing, visible

STATIC_ROWS = 20
STATIC_TOKENS = 200
"""Response tokens shown of a row; each costs some 150 bytes of the page."""
PROMPT_ENDS = 128
"""Tokens shown of either end of a long prompt."""
SHADES = 4
"""Steps of shading on either side of zero influence."""


def static_rows(split: ScoredSplit, text: TokenText, chosen: list[int]) -> list[dict[str, Any]]:
    """The first of the rows `chosen`: what `heading` tells, and `spans` of prompt text or response tokens."""
    scale = influence_scale(split)
    return [
        heading(split, row, STATIC_TOKENS) | {"spans": _spans(split, row, text, scale)}
        for row in chosen[:STATIC_ROWS]
    ]


def heading(split: ScoredSplit, row: int, limit: int) -> dict[str, Any]:
    """Which row it is and where it comes from; its response tokens, those of the first `limit`, the negatives."""
    label = split.label[row_slice(split, row)]
    tokens = int((label != 0).sum())
    return {
        "row": row,
        "origin": visible(split.origins[row]),
        "tokens": tokens,
        "shown_tokens": min(tokens, limit),
        "negative_tokens": int((label == -1).sum()),
    }


def row_slice(split: ScoredSplit, row: int) -> slice:
    """Where the tokens of a row are."""
    return slice(int(split.rows.offsets[row]), int(split.rows.offsets[row + 1]))


def influence_scale(split: ScoredSplit) -> float:
    """The size of influence, in nats, that is shaded darkest: 5 % of the response tokens go beyond."""
    return float(np.quantile(np.abs(split.influence[split.response]), 0.95))


def runs(split: ScoredSplit, row: int, limit: int) -> Iterator[tuple[bool, list[int]]]:
    """(is it of the response, places of the tokens) for each run of a row, up to its `limit`-th response token."""
    where = row_slice(split, row)
    response = split.label[where] != 0
    left = limit
    for is_response, run in groupby(range(where.start, where.stop), key=lambda t: bool(response[t - where.start])):
        places = list(run)
        if is_response:
            places = places[:left]
            left -= len(places)
        yield is_response, places
        if left == 0:
            return


def prompt_text(split: ScoredSplit, places: list[int], text: TokenText) -> str:
    """The text of a run of prompt tokens; of a long one both ends, and how much is left out between them."""
    ids = split.rows.input_ids[places].tolist()
    left_out = len(ids) - 2 * PROMPT_ENDS
    if left_out <= 0:
        return flowing(text.text(ids))
    begin, end = text.text(ids[:PROMPT_ENDS]), text.text(ids[-PROMPT_ENDS:])
    return f"{flowing(begin)}\n[… {left_out:,} tokens of the prompt are not shown …]\n{flowing(end)}"


def _spans(split: ScoredSplit, row: int, text: TokenText, scale: float) -> list[dict[str, Any]]:
    """Runs of tokens: `{"prompt": text}` or `{"tokens": [{"text", "element", "classes", "title"}, …]}`;
    the element is `u`, underlined even without styles, for negative tokens.
    """
    return [
        {"tokens": [_token(split, t, text, scale) for t in places]}
        if is_response
        else {"prompt": prompt_text(split, places, text)}
        for is_response, places in runs(split, row, STATIC_TOKENS)
    ]


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
    step = shade_step(influence, scale)
    return f"{'u' if step > 0 else 'd'}{abs(step)}" if step else ""


def shade_step(influence: float, scale: float) -> int:
    """−4 … 4: the size of influence in quarters of `scale`, its sign kept."""
    steps = round(SHADES * min(abs(influence) / scale, 1.0)) if scale else 0
    return steps if influence > 0 else -steps
