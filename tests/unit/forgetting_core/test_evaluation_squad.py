"""SQuAD's F1 and exact match against an independent copy of the official evaluation script.

That is `lm_eval.tasks.qasper.metrics` (lm-evaluation-harness): `normalize_answer` and `f1_abstractive`, "taken from
the official evaluation script for v1.1 of the SQuAD dataset". torchmetrics is not installed, transformers 5 has no
`squad_metrics` any more, and `evaluate.load("squad")` fetches its code from the hub.
"""

import random

import pytest
from lm_eval.tasks.qasper.metrics import f1_abstractive, normalize_answer

from forgetting_core.evaluation.squad import exact_match, f1, normalised, process_results

TEXT = """
the The AN a an theatre x-ray it's U.S.A. 1,000 $5 “quoted” „Zitat“ naïve NAÏVE Straße STRASSE İstanbul ΣΊΣΥΦΟΣ
наука, Москва́ 東京、 서울은 ঢাকা। తెలుగు القاهرة، الـ kiswahili... ﬁn 😀 a\u0301n _under_ \u200bzero
"""
WORDS = TEXT.split()
GAPS = (" ", "  ", "\t", "\n", "\u00a0", "\u2003", "")


def text(rng: random.Random) -> str:
    return "".join(rng.choice(WORDS) + rng.choice(GAPS) for _ in range(rng.randrange(12)))


def test_a_thousand_pairs_agree_with_the_official_script() -> None:
    rng = random.Random(0)
    scores = []
    for _ in range(1000):
        prediction = text(rng)
        answer = prediction.title() if rng.random() < 0.2 else text(rng)
        assert normalised(prediction) == normalize_answer(prediction)
        assert exact_match(prediction, answer) == (normalize_answer(prediction) == normalize_answer(answer))
        score = f1(prediction, answer)
        assert score == pytest.approx(f1_abstractive([prediction], [answer]), abs=1e-12), (prediction, answer)
        scores.append(score)
    assert min(scores) == 0 and max(scores) == 1 and len(set(scores)) > 30


def test_two_empty_answers_match_exactly_and_share_no_word() -> None:
    assert exact_match("The.", "") == 1 and f1("The.", "") == 0


def test_the_best_of_several_answers_counts() -> None:
    found = process_results({"answers": ["in Paris", "Paris"]}, [" Paris.\n"])
    assert found == {"exact_match": 1.0, "f1": 1.0}
