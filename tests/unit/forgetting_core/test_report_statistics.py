"""The numbers of the report against plain loops."""

from pathlib import Path

import numpy as np
import pytest

from forgetting_core.errors import InputError
from forgetting_core.report.benchmarks import benchmark_table, read_metrics
from forgetting_core.report.scored_split import ScoredSplit
from forgetting_core.report.statistics import by_class, by_position, by_source, frequent_tokens, histogram, roc_auc
from forgetting_core.report.token_class import NUMBER, SPECIAL, WORD
from forgetting_core.report.token_view import shade
from forgetting_core.tables import IGNORE_INDEX, TokenRows


def brute_force_auc(score: np.ndarray, is_positive: np.ndarray) -> float:
    pairs = [(p, n) for p in score[is_positive] for n in score[~is_positive]]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_auc_counts_pairs_with_ties_half(seed: int) -> None:
    random = np.random.default_rng(seed)
    score = random.integers(-4, 5, 120).astype(np.float32)
    is_positive = random.random(120) < 0.3
    assert roc_auc(score, is_positive) == pytest.approx(brute_force_auc(score, is_positive), abs=1e-12)


def test_auc_is_undefined_without_both_classes() -> None:
    assert roc_auc(np.ones(3, np.float32), np.ones(3, bool)) is None
    assert roc_auc(np.ones(3, np.float32), np.zeros(3, bool)) is None


def make_split(labels: list[list[int]], sources: list[str]) -> ScoredSplit:
    """Rows whose tokens have the signs `labels`; the token's id is its position in the row."""
    offsets = np.cumsum([0, *map(len, labels)])
    label = np.array([sign for row in labels for sign in row], np.int8)
    input_ids = np.array([position for row in labels for position in range(len(row))], np.int32)
    influence = np.where(label == 0, np.nan, label).astype(np.float32)
    rows = TokenRows(input_ids, np.where(label == 0, IGNORE_INDEX, input_ids).astype(np.int32), offsets)
    return ScoredSplit(rows, influence, influence, influence, label, None, sources, sources)


def test_shares_by_source_count_response_tokens_only() -> None:
    split = make_split([[0, 0, 1, -1], [0, -1, -1, -1], [0, 1], [0, 0]], ["a", "b", "a", "c"])
    assert by_source(split) == [
        {"source": "a", "rows": 2, "tokens": 3, "negative_tokens": 1, "negative_share": 1 / 3},
        {"source": "b", "rows": 1, "tokens": 3, "negative_tokens": 3, "negative_share": 1.0},
        {"source": "c", "rows": 1, "tokens": 0, "negative_tokens": 0, "negative_share": None},
    ]


def test_shares_by_class_list_every_class_and_skip_prompts() -> None:
    split = make_split([[0, -1, 1, -1], [0, 1, -1]], ["a", "b"])
    shares = {part["class"]: part for part in by_class(split, [SPECIAL, WORD, NUMBER, WORD].__getitem__)}
    assert [(part["tokens"], part["negative_tokens"]) for part in shares.values()] == [
        (3, 2),
        (2, 1),
        (0, 0),
        (0, 0),
        (0, 0),
        (0, 0),
    ]
    assert shares[WORD]["negative_share"] == 2 / 3
    assert shares[SPECIAL]["negative_share"] is None


def test_position_is_relative_to_the_row_and_skips_prompts() -> None:
    twenty = [0, 0, 0, -1, -1] + [1] * 16 + [-1, 1]
    between_turns = [0, 1, 0, 0, -1]
    parts = by_position(make_split([twenty, between_turns], ["a", "a"]))
    assert [part["tokens"] for part in parts] == [3, 2, 2, 2, 2, 3, 2, 2, 2, 2]
    assert [part["negative_tokens"] for part in parts] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]


def test_frequent_tokens_tell_how_often_and_how_surely() -> None:
    found = frequent_tokens(make_split([[0, -1, 1], [0, -1, -1], [0, 1]], ["a"] * 3))
    assert found["negative"] == [{"id": 1, "tokens": 2, "share": 2 / 3}, {"id": 2, "tokens": 1, "share": 0.5}]
    assert found["positive"] == [{"id": 1, "tokens": 1, "share": 1 / 3}, {"id": 2, "tokens": 1, "share": 0.5}]


@pytest.mark.parametrize("labels", [[[0, 1, -1, 1]], [[0, 1, 1]]])
def test_histogram_holds_every_token(labels: list[list[int]]) -> None:
    counts = histogram(make_split(labels, ["a"]))
    assert sum(counts["positive"]) == labels[0].count(1)
    assert sum(counts["negative"]) == labels[0].count(-1)
    assert len(counts["edges"]) == len(counts["positive"]) + 1


def test_models_stand_in_the_usual_order(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    found = read_metrics({name: [tmp_path] for name in ("zeta", "forget", "alpha", "sft", "base")})
    assert list(found) == ["base", "sft", "forget", "alpha", "zeta"]


def test_unreadable_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.json"):
        read_metrics({"base": [tmp_path]})


def test_a_model_may_lack_a_task_and_base_may_be_missing() -> None:
    table = benchmark_table({"sft": {"boolq": {"acc": 0.5, "acc_stderr": 0.1}}, "forget": {}})
    cells = {"sft": {"value": 0.5, "stderr": 0.1, "difference": None}}
    assert table == [{"task": "boolq", "metric": "acc", "models": cells}]


def test_shade_follows_sign_and_size() -> None:
    assert [shade(value, 2.0) for value in (-9.0, -1.0, -0.1, 0.0, 0.1, 1.0, 9.0)] == [
        "d4",
        "d2",
        "",
        "",
        "",
        "u2",
        "u4",
    ]
    assert shade(0.0, 0.0) == ""
