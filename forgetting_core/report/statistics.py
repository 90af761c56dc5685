"""The numbers of the report: which tokens were called negative, where they are, and whether that was sensible.

Everything returned is plain JSON data; sums are float64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from forgetting_core.partition import describe
from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.token_class import TOKEN_CLASSES

DECILES = 10
HISTOGRAM_BINS = 60
FREQUENT_TOKENS = 15


def count_everything(split: ScoredSplit, class_of: Callable[[int], str]) -> dict[str, Any]:
    """All statistics of the split but the decoded tokens; `class_of` tells a token id's class.

    `noise` is there only when planted noise is known.
    """
    response = split.response
    score, label = split.influence[response], split.label[response]
    counted = describe(score, label)
    found: dict[str, Any] = {
        **counted,
        "negative_share": counted["negative_tokens"] / counted["tokens"],
        "median_influence": float(np.median(score)),
        "rows": len(split.rows),
        "rows_without_response": int(len(split.rows) - len(np.unique(split.row_of_token()[response]))),
        "by_source": by_source(split),
        "by_position": by_position(split),
        "by_class": by_class(split, class_of),
        "histogram": histogram(split),
        "frequent": frequent_tokens(split),
    }
    if split.noise is not None:
        found["noise"] = noise_detection(split.noise[response], score, label)
    return found


def by_source(split: ScoredSplit) -> list[dict[str, Any]]:
    """Rows, response tokens and their negative share for each source, the one with most tokens first."""
    response = split.response
    names, source_of_row = np.unique(np.array(split.sources, dtype=object), return_inverse=True)
    source = source_of_row[split.row_of_token()[response]]
    rows = np.bincount(source_of_row, minlength=len(names))
    tokens = np.bincount(source, minlength=len(names))
    negative = np.bincount(source[split.label[response] == -1], minlength=len(names))
    return [
        {"source": names[i], "rows": int(rows[i]), **_share(tokens[i], negative[i])}
        for i in np.argsort(-tokens, kind="stable")
    ]


def by_position(split: ScoredSplit) -> list[dict[str, Any]]:
    """Response tokens and their negative share in each tenth of the row's response; the first tenth first.

    Response token i of n (from 0) of a row is in tenth ⌊10·i/n⌋; several turns of a row count as one response.
    """
    response = split.response
    row = split.row_of_token()[response]
    tokens_of_row = np.bincount(row, minlength=len(split.rows))
    first = np.cumsum(tokens_of_row) - tokens_of_row
    tenth = DECILES * (np.arange(len(row)) - first[row]) // tokens_of_row[row]
    tokens = np.bincount(tenth, minlength=DECILES)
    negative = np.bincount(tenth[split.label[response] == -1], minlength=DECILES)
    return [_share(tokens[i], negative[i]) for i in range(DECILES)]


def by_class(split: ScoredSplit, class_of: Callable[[int], str]) -> list[dict[str, Any]]:
    """Response tokens and their negative share for each of `TOKEN_CLASSES`, in that order."""
    response = split.response
    ids, token = np.unique(split.rows.input_ids[response], return_inverse=True)
    kind = np.array([TOKEN_CLASSES.index(class_of(int(i))) for i in ids])[token]
    tokens = np.bincount(kind, minlength=len(TOKEN_CLASSES))
    negative = np.bincount(kind[split.label[response] == -1], minlength=len(TOKEN_CLASSES))
    return [{"class": name, **_share(tokens[i], negative[i])} for i, name in enumerate(TOKEN_CLASSES)]


def _share(tokens: int, negative: int) -> dict[str, Any]:
    return {
        "tokens": int(tokens),
        "negative_tokens": int(negative),
        "negative_share": float(negative / tokens) if tokens else None,
    }


def histogram(split: ScoredSplit) -> dict[str, list[Any]]:
    """Counts of influence, per label; `edges` in nats, one more than bins.

    The edges span the middle 99 % of the tokens; the outermost bins hold everything beyond.
    """
    response = split.response
    score = split.influence[response].astype(np.float64)
    low, high = np.quantile(score, [0.005, 0.995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    score = score.clip(low, high)
    parts = {"negative": split.label[response] == -1, "positive": split.label[response] == 1}
    if split.noise is not None:
        parts["noise"] = split.noise[response]
    counts = {name: np.histogram(score[part], edges)[0].tolist() for name, part in parts.items()}
    return {"edges": edges.tolist(), **counts}


def frequent_tokens(split: ScoredSplit) -> dict[str, list[dict[str, Any]]]:
    """The token ids that are most often positive and most often negative; ties go to the lower id.

    `share` is the part of the id's response tokens that has the label: near 1 says more than a high count.
    """
    response = split.response
    ids, label = split.rows.input_ids[response], split.label[response]
    total = np.bincount(ids)
    found = {}
    for name, sign in (("positive", 1), ("negative", -1)):
        counts = np.bincount(ids[label == sign], minlength=len(total))
        top = np.argsort(-counts, kind="stable")[:FREQUENT_TOKENS]
        found[name] = [
            {"id": int(i), "tokens": int(counts[i]), "share": float(counts[i] / total[i])} for i in top if counts[i]
        ]
    return found


def noise_detection(noise: np.ndarray, score: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """How well the labels find planted noise. All (N,) over response tokens: bool, float32 nats, int8.

    `called_negative` is the recall, `chance` what labels drawn at random would reach; None where undefined.
    """
    negative = label == -1
    return {
        "tokens": int(noise.sum()),
        "share": float(noise.mean()),
        "called_negative": float(negative[noise].mean()) if noise.any() else None,
        "chance": float(negative.mean()),
        "precision": float(noise[negative].mean()) if negative.any() else None,
        "auc": roc_auc(-score, noise),
    }


def roc_auc(score: np.ndarray, is_positive: np.ndarray) -> float | None:
    """P(score of a positive > score of a negative) + ½ P(equal); None when either class is empty.

    `score` float (N,), `is_positive` bool (N,). The Mann–Whitney U by ranks, ties averaged.
    """
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    u = rank[inverse][is_positive].sum(dtype=np.float64) - positives * (positives + 1) / 2
    return float(u / (positives * negatives))
