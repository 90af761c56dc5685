"""How alike several answers to one prompt are, and how they end; means over prompts, with bootstrap intervals.

Answers are compared as tokens of the model's own tokenizer: exact, in every language, and without a rule of where
words end. So the values of two models compare only when they share a tokenizer, as those of one recipe do. They
depend on the number and the length of answers, too: longer ones repeat more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from scipy.stats import bootstrap, sem

Tokens = Sequence[int]
NGRAMS = (1, 2, 3)
LOOP_TIMES = 3
LOOP_TOKENS = 8
RESAMPLES = 9999
_BLEU = BLEU(tokenize="none", effective_order=True)
"""Of one text: exponential smoothing, and only the orders that a short answer has."""


@dataclass(frozen=True)
class Answer:
    """One sampled answer."""

    text: str
    """Without special tokens."""
    tokens: tuple[int, ...]
    """Up to the end token, which is left out."""


@dataclass(frozen=True)
class Mean:
    """A measure's mean over prompts."""

    value: float
    prompts: int
    """That it is defined for."""
    stderr: float | None
    """None for a single prompt, as `low` and `high`, the ends of the 95 % interval."""
    low: float | None
    high: float | None


def measure(answers: Sequence[Answer]) -> dict[str, float]:
    """The measures of the answers to one prompt, those that are defined.

    - `distinct_1`, `_2`, `_3`: different n-grams / n-grams, counted over all answers (Li et al. 2016)
    - `self_bleu`: `self_bleu`; `overlap`: `overlap`. Both leave empty answers out and need two others
    - `length`: mean number of tokens
    - `empty`: share of answers that are nothing but white space
    - `looping`: share of answers for which `loops`
    """
    written = [answer.tokens for answer in answers if not is_empty(answer)]
    found = {
        "length": float(np.mean([len(answer.tokens) for answer in answers])),
        "empty": (len(answers) - len(written)) / len(answers),
        "looping": sum(loops(answer.tokens) for answer in answers) / len(answers),
    }
    for n in NGRAMS:
        ngrams = [gram for tokens in written for gram in _ngrams(tokens, n)]
        if ngrams:
            found[f"distinct_{n}"] = len(set(ngrams)) / len(ngrams)
    if len(written) > 1:
        found["self_bleu"] = self_bleu(written)
        found["overlap"] = overlap(written)
    return found


def is_empty(answer: Answer) -> bool:
    """Whether nothing can be read."""
    return not answer.text.strip()


def self_bleu(answers: Sequence[Tokens]) -> float:
    """Mean BLEU-4 of each answer with all others as its references, from 0 to 1 (Zhu et al. 2018)."""
    texts = [" ".join(map(str, tokens)) for tokens in answers]
    scores = [
        _BLEU.sentence_score(text, texts[:place] + texts[place + 1 :]).score for place, text in enumerate(texts)
    ]
    return float(np.mean(scores)) / 100


def overlap(answers: Sequence[Tokens]) -> float:
    """Mean over pairs of F1 between the two bags of tokens: 2 · shared / all, from 0 to 1; order does not count."""
    bags = [Counter(tokens) for tokens in answers]
    return float(np.mean([2 * (a & b).total() / (a.total() + b.total()) for a, b in combinations(bags, 2)]))


def loops(tokens: Tokens) -> bool:
    """Whether the end is one block of tokens, again and again: 3 times or more, and 8 tokens or more in all."""
    for period in range(1, len(tokens) // LOOP_TIMES + 1):
        end = tokens[-max(LOOP_TIMES * period, LOOP_TOKENS) :]
        if len(end) >= LOOP_TOKENS and end[period:] == end[:-period]:
            return True
    return False


def means(prompts: Sequence[Mapping[str, float]], seed: int) -> dict[str, Mean]:
    """The mean of each measure over the prompts that it is defined for.

    Prompts are the independent draws, so they are what is resampled: percentile intervals of scipy's bootstrap,
    beside the usual standard error, as the bootstrap's own is too small by √((n−1)/n).
    """
    names = sorted({name for values in prompts for name in values})
    return {name: _mean(np.array([values[name] for values in prompts if name in values]), seed) for name in names}


def _mean(values: np.ndarray, seed: int) -> Mean:
    mean = float(values.mean())
    if len(values) < 2:
        return Mean(mean, len(values), None, None, None)
    resampled = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1000,
        method="percentile",
        rng=np.random.Generator(np.random.PCG64(seed)),
    )
    low, high = resampled.confidence_interval
    return Mean(mean, len(values), float(sem(values)), float(low), float(high))


def _ngrams(tokens: Tokens, n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
