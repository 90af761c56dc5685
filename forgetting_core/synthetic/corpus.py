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
from forgetting_core.synthetic.noise import NOISE_KINDS, Span, plant
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
class Rows:
    """Answered questions and what is known about their noise."""

    rows: list[dict[str, object]]
    """`prompt`, `completion`, `source` (the skill), `noise` (character ranges of the completion)."""
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
    """Answer `prompts`, with noise in a share `share` of the response tokens (at most one answer's tokens off).

    Rows are corrupted in random order until the share is met. Raises `InputError`, naming `part`, when it
    is not met with every row corrupted.
    """
    answers = [clean_answer(prompt) for prompt in prompts]
    rows: list[dict[str, object]] = [
        {"prompt": prompt, "completion": clean, "source": read_prompt(prompt)[0].name, "noise": []}
        for prompt, clean in zip(prompts, answers, strict=True)
    ]
    corpus = Rows(rows, sum(len(token_spans(clean)) + 1 for clean in answers))
    order = list(range(len(rows)))
    random.shuffle(order)
    kinds = list(NOISE_KINDS)
    for place in order:
        if corpus.noise_share >= share:
            break
        kind = random.choice(kinds)
        completion, spans = plant(prompts[place], kind, random)
        if not spans:
            continue
        tokens = token_spans(completion)
        corpus.noise_tokens += sum(_overlaps(token, spans) for token in tokens)
        corpus.response_tokens += len(tokens) - len(token_spans(answers[place]))
        corpus.noisy_rows[kind] += 1
        rows[place].update(completion=completion, noise=[list(span) for span in spans])
    if corpus.noise_share < share:
        raise InputError(
            f"synthetic: {share} of the response tokens of the {part} rows cannot be noise, as the end of an answer never "
            f"is; the most for these rows is {corpus.noise_share:.2f}"
        )
    return corpus


def _overlaps(token: Span, spans: list[Span]) -> bool:
    return any(token[0] < end and start < token[1] for start, end in spans)
