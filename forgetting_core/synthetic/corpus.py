"""The rows of the synthetic corpus: disjoint questions for pretraining, training, reference and test, and the exact
share of noise in the answers.

Noise is counted in response tokens, the unit of the method, and therefore planted with the tokenizer at hand.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from forgetting_core.config import SyntheticConfig
from forgetting_core.errors import InputError
from forgetting_core.synthetic.noise import Span, noise_kind, noise_order, plant
from forgetting_core.synthetic.skills import SKILLS, clean_answer, read_prompt

TokenSpans = Callable[[str], list[Span]]
"""The character range of each token of a text."""
DRAWS_PER_PROMPT = 1000


@dataclass(frozen=True)
class Prompts:
    """Questions of each part; no question occurs twice, in one part or in two."""

    pretraining: list[str]
    train: list[str]
    reference: list[str]
    test: list[str]


@dataclass
class Row:
    """An answered question."""

    prompt: str
    completion: str
    source: str
    """Name of its skill."""
    noise: list[Span] = field(default_factory=list)
    """Character ranges of the completion that are planted noise."""


@dataclass
class Rows:
    """Answered questions and what is known about their noise."""

    rows: list[Row]
    response_tokens: int
    """Tokens of all completions and the end of each."""
    noise_tokens: int = 0
    """Tokens with at least one noise character."""
    noisy_rows: Counter[str] = field(default_factory=Counter)
    """By kind of noise."""

    @property
    def noise_share(self) -> float:
        """Share of the response tokens that are noise."""
        return self.noise_tokens / self.response_tokens


def draw_prompts(config: SyntheticConfig) -> Prompts:
    """The questions, each skill in turn, then shuffled. Raises `InputError` when a skill has too few questions."""
    random = Random(f"prompts {config.seed}")
    seen: set[str] = set()

    def draw(count: int) -> list[str]:
        prompts = [_unseen_prompt(place, random, seen) for place in range(count)]
        random.shuffle(prompts)
        return prompts

    return Prompts(
        test=draw(config.test_rows),
        reference=draw(config.reference_rows),
        train=draw(config.train_rows),
        pretraining=draw(config.pretrain.rows),
    )


def _unseen_prompt(place: int, random: Random, seen: set[str]) -> str:
    skill = SKILLS[place % len(SKILLS)]
    for _ in range(DRAWS_PER_PROMPT):
        prompt = skill.prompt(random)
        if prompt not in seen:
            seen.add(prompt)
            return prompt
    raise InputError(
        f"synthetic: the skill {skill.name!r} has no further question after {len(seen)} questions in all; "
        "ask for fewer rows (train_rows, reference_rows, test_rows, pretrain.rows)"
    )


def answer(prompts: list[str], share: float, *, part: str, token_spans: TokenSpans, random: Random) -> Rows:
    """Answer `prompts`, with noise in a share `share` of the response tokens (at most one answer's tokens above).

    Rows become noisy one by one until the share is met. Raises `InputError`, naming `part`, when it is not met with
    every row noisy.
    """
    rows = [Row(prompt, clean_answer(prompt), read_prompt(prompt)[0].name) for prompt in prompts]
    corpus = Rows(rows, sum(len(token_spans(row.completion)) + 1 for row in rows))
    for place in noise_order([row.source for row in rows], random):
        if corpus.noise_share >= share:
            return corpus
        row = rows[place]
        kind = noise_kind(row.source, random)
        completion, spans = plant(row.prompt, kind, random)
        if not spans:
            continue
        tokens = token_spans(completion)
        corpus.noise_tokens += sum(_overlaps(token, spans) for token in tokens)
        corpus.response_tokens += len(tokens) - len(token_spans(row.completion))
        corpus.noisy_rows[kind] += 1
        row.completion, row.noise = completion, spans
    if corpus.noise_share < share:
        raise InputError(
            f"synthetic: noise cannot be {share} of the response tokens of the {part} rows; the end of an answer "
            f"never is noise, and with every row noisy it is {corpus.noise_share:.2f}. Ask for at most that"
        )
    return corpus


def _overlaps(token: Span, spans: list[Span]) -> bool:
    return any(token[0] < end and start < token[1] for start, end in spans)
