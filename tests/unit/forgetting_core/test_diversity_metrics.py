"""How alike answers are, against other implementations and formulas written out here."""

import math
import random

import numpy as np
import pytest
import sacrebleu
from nltk.translate.bleu_score import sentence_bleu

from forgetting_core.evaluation.diversity_metrics import Answer, loops, means, measure, overlap, self_bleu

TEXTS = [
    "Die Größe: naïve façade – 数据 🙂 ok",
    "Die Größe: naïve façade – 数据 🙃 ok",
    "ein ganz anderer Satz mit acht Wörtern hier",
    "",
    " \n",
    "🙂 🙂 🙂",
    "ok",
]


def answers_of(texts: list[str]) -> list[Answer]:
    """A token for each character."""
    return [Answer(text, tuple(map(ord, text))) for text in texts]


def random_answers(seed: int, count: int = 4) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [tuple(draw.choices(range(6), k=draw.randint(1, 15))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(40))
def test_self_bleu_is_that_of_sacrebleu_on_the_words(seed: int) -> None:
    """Called by hand: the plain function on the tokens as words."""
    answers = random_answers(seed)
    lines = [" ".join(f"w{token}" for token in tokens) for tokens in answers]
    by_hand = [
        sacrebleu.sentence_bleu(
            line, [*lines[:place], *lines[place + 1 :]], tokenize="none", use_effective_order=True
        ).score
        for place, line in enumerate(lines)
    ]
    assert self_bleu(answers) == pytest.approx(np.mean(by_hand) / 100, rel=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_self_bleu_is_that_of_nltk_where_nothing_is_smoothed(seed: int) -> None:
    draw = random.Random(seed)
    common = draw.choices(range(50), k=12)  # with four tokens in common every order has a match
    answers = [(*draw.choices(range(50), k=draw.randint(1, 9)), *common) for _ in range(4)]
    expected = [
        sentence_bleu([other for other in answers if other is not answer], list(answer)) for answer in answers
    ]
    assert self_bleu(answers) == pytest.approx(np.mean(expected), rel=1e-12)


def test_distinct_n_counts_different_ngrams_over_all_answers_of_a_prompt() -> None:
    written = [text for text in TEXTS if text.strip()]
    found = measure(answers_of(TEXTS))
    for n in (1, 2, 3):
        ngrams = [text[first : first + n] for text in written for first in range(len(text) - n + 1)]
        assert found[f"distinct_{n}"] == len(set(ngrams)) / len(ngrams)
    assert found["empty"] == 2 / 7
    assert found["length"] == sum(map(len, TEXTS)) / 7


def test_overlap_is_the_mean_share_of_common_tokens() -> None:
    assert overlap([(1, 2, 3), (3, 2, 1)]) == 1.0
    assert overlap([(1, 1), (1, 2, 3, 4)]) == 2 * 1 / 6
    assert overlap([(1,), (1,), (2,)]) == pytest.approx((1 + 0 + 0) / 3)


def test_equal_answers_are_least_diverse_and_different_ones_most() -> None:
    same, apart = measure(answers_of(["abcdef"] * 4)), measure(answers_of(["abcd", "efgh", "ijkl"]))
    assert (same["distinct_1"], same["distinct_2"], same["distinct_3"]) == (1 / 4, 1 / 4, 1 / 4)
    assert same["self_bleu"] == pytest.approx(1) and same["overlap"] == 1
    assert apart["distinct_1"] == apart["distinct_2"] == 1 and apart["overlap"] == 0
    assert apart["self_bleu"] < 0.1


def test_empty_answers_are_counted_but_not_compared() -> None:
    some, none = measure(answers_of(["abc", "", "abc", " "])), measure(answers_of(["", "\n"]))
    without = measure(answers_of(["abc", "abc"]))
    assert some["empty"] == 0.5
    for name in ("self_bleu", "overlap", "distinct_1", "distinct_2"):
        assert some[name] == without[name]
    assert none == {"empty": 1.0, "looping": 0.0, "length": 0.5}


def test_answers_that_repeat_nothing_but_white_space_are_looping_too() -> None:
    assert measure(answers_of(["\n" * 9, "abc", "xy" * 6, " "]))["looping"] == 2 / 4


def test_a_single_answer_is_compared_with_nothing() -> None:
    assert measure(answers_of(["aabc"])) == {
        "empty": 0.0,
        "looping": 0.0,
        "length": 4.0,
        "distinct_1": 3 / 4,
        "distinct_2": 1.0,
        "distinct_3": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("and so on and so on and so on", False),  # the last block lacks its space
        ("x and so on and so on and so on", True),
        ("aaaaaaaa", True),
        ("start aaaaaaaa", True),
        ("aaaaaaa", False),  # seven tokens
        ("aaaaaaaa.", False),  # it got out of it
        ("abcdeabcde", False),  # twice
        ("abcdeabcdeabcde", True),
        ("abcabcab", False),  # two times and a bit
        ("abababab", True),
        ("xyabababab", True),
        ("", False),
        ("a", False),
    ],
)
def test_a_loop_is_an_end_that_repeats(text: str, expected: bool) -> None:
    assert loops(tuple(map(ord, text))) is expected


def test_a_mean_has_the_error_and_the_interval_of_a_mean() -> None:
    values = np.random.Generator(np.random.PCG64(1)).normal(3, 2, 400)
    mean = means([{"x": value} for value in values], seed=42)["x"]
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert mean.value == pytest.approx(values.mean(), rel=1e-12) and mean.prompts == 400
    assert mean.stderr == pytest.approx(error, rel=1e-12)
    assert mean.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert mean.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert means([{"x": value} for value in values], seed=42)["x"] == mean
    few = means([{"x": 1.0}, {"x": 3.0}], seed=42)["x"]
    assert few.stderr == pytest.approx(1.0)  # a bootstrap's would be √½ of it


def test_a_measure_is_averaged_over_the_prompts_that_have_it() -> None:
    found = means([{"x": 1.0, "y": 2.0}, {"x": 3.0}], seed=0)
    assert (found["x"].value, found["x"].prompts) == (2.0, 2)
    assert (found["y"].value, found["y"].prompts, found["y"].stderr) == (2.0, 1, None)
    constant = means([{"x": 0.0}] * 3, seed=0)["x"]
    assert (constant.stderr, constant.low, constant.high) == (0.0, 0.0, 0.0)
