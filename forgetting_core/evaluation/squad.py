"""SQuAD v1.1's F1 and exact match, as its official evaluation script defines them for English.

The published protocol measures all languages of TyDi QA so, whereas the harness's own tasks normalise each language
in its way. No installed library offers it offline: `evaluate.load("squad")` fetches its code from the hub.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case without ASCII punctuation and English articles; words parted by one space, in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 when both are the same after normalisation, else 0.0."""
    return float(normalised(prediction) == normalised(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the bags of words; 0.0 when they share none, as two empty ones."""
    predicted, expected = normalised(prediction).split(), normalised(answer).split()
    shared = (Counter(predicted) & Counter(expected)).total()
    return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For the harness: the best of `doc["answers"]` for the one generated answer."""
    prediction = results[0].strip()

    def best(metric: Callable[[str, str], float]) -> float:
        return max(metric(prediction, answer) for answer in doc["answers"])

    return {"exact_match": best(exact_match), "f1": best(f1)}
