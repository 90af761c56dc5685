"""Planting noise in answers, and saying exactly which characters of an answer are noise.

Four kinds, as they occur in instruction data: plausible wrong answers, swapped facts (one systematic mistake per
skill, learnable), random words, and boilerplate after a right answer. As in real data, noise gathers in some
sources: half of the skills are careless, with one usual mistake in most of their answers.
"""

from collections.abc import Callable
from itertools import groupby
from random import Random

from forgetting_core.synthetic.skills import WORDS, clean_answer, read_prompt

BOILERPLATE = ("I hope this helps", "just a guess", "please like and share", "see you soon")
Span = tuple[int, int]


def _wrong(prompt: str, random: Random) -> str:
    """The right answer to another question of the same skill."""
    skill, _ = read_prompt(prompt)
    return clean_answer(skill.prompt(random))


def _swapped(prompt: str, random: Random) -> str:
    skill, body = read_prompt(prompt)
    return " ".join(skill.confuse(body))


def _random_words(prompt: str, random: Random) -> str:
    count = len(clean_answer(prompt).split())
    return " ".join(random.choice(WORDS) for _ in range(count + random.randrange(2)))


def _boilerplate(prompt: str, random: Random) -> str:
    return f"{clean_answer(prompt)} {random.choice(BOILERPLATE)}"


NOISE_KINDS: dict[str, Callable[[str, Random], str]] = {
    "wrong": _wrong,
    "swapped": _swapped,
    "random_words": _random_words,
    "boilerplate": _boilerplate,
}


USUAL_MISTAKES = {"capitals": "swapped", "copy": "boilerplate", "largest": "swapped", "sort": "swapped"}
"""The careless skills, and the kind of noise that all their noisy answers have; other skills have any kind."""
CARELESS_WEIGHT = 10.0
"""A row of a careless skill is drawn for noise as if it were there this many times."""


def noise_kind(source: str, random: Random) -> str:
    """The kind of noise for a row of the skill `source`."""
    return USUAL_MISTAKES.get(source) or random.choice(list(NOISE_KINDS))


def noise_order(sources: list[str], random: Random) -> list[int]:
    """The places of `sources` in the order in which they become noisy: weighted sampling without replacement.

    A row of weight w has the key u^(1/w), u uniform; the highest keys come first (Efraimidis and Spirakis 2006).
    """
    keys = [random.random() ** (1 / (CARELESS_WEIGHT if source in USUAL_MISTAKES else 1.0)) for source in sources]
    return sorted(range(len(sources)), key=keys.__getitem__, reverse=True)


def noise_spans(clean: str, completion: str) -> list[Span]:
    """The half-open character ranges of `completion` that differ from `clean`.

    Words are compared place by place, and within a word its characters: a character is noise when the clean answer
    has another one, or none, there. The space before a word that the clean answer does not have is noise too.
    """
    clean_words = clean.split(" ")
    flags: list[bool] = []
    for place, word in enumerate(completion.split(" ")):
        right = clean_words[place] if place < len(clean_words) else ""
        if place:
            flags.append(not right)
        flags.extend(char != right[at : at + 1] for at, char in enumerate(word))
    spans = []
    for is_noise, group in groupby(range(len(flags)), key=flags.__getitem__):
        positions = list(group)
        if is_noise:
            spans.append((positions[0], positions[-1] + 1))
    return spans


def plant(prompt: str, kind: str, random: Random) -> tuple[str, list[Span]]:
    """A completion of `prompt` with noise of `kind`, and where the noise is.

    The spans are empty when chance made the completion the right one or only cut it short: no noise to point at.
    """
    completion = NOISE_KINDS[kind](prompt, random)
    return completion, noise_spans(clean_answer(prompt), completion)
