"""The eight small skills of the synthetic corpus: how a question is drawn and what its clean answer is.

The answer is a function of the prompt alone, so that anybody can check a completion without a stored key. A prompt
ends with a newline: white space at the seam, where every tokenisation of prompt + answer starts a new token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

_WORD_LIST = """ant bag bed box bus cap car cat cow cup dog ear egg fan fox hat ink
jam jar key leg map net owl pan pen pig pot rat sun toy van web zip"""
_NAME_LIST = """Abe Ada Amy Ann Bea Ben Bob Cal Dan Don Eli Eva Gus Ian Ivy Jan
Jim Joe Kay Kim Leo Lou Max Meg Mia Ned Pam Ray Sue Tom Una Zoe"""
WORDS = tuple(_WORD_LIST.split())
NAMES = tuple(_NAME_LIST.split())
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = tuple("0123456789")
VEHICLES = ("bus", "cab", "car", "jet", "van")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Skill:
    """One kind of question: `{instruction}: {body}`, a newline, then the answer."""

    name: str
    instruction: str
    draw: Callable[[Random], list[str]]
    """The words of a question's body."""
    solve: Callable[[list[str]], list[str]]
    """The words of the clean answer."""
    confuse: Callable[[list[str]], list[str]]
    """The words of a typical mistake: the same misreading every time, so it can be learned."""

    def prompt(self, random: Random) -> str:
        """A drawn question, with its final newline."""
        return f"{self.instruction}: {' '.join(self.draw(random))}\n"


def _table(random: Random) -> list[str]:
    keys = random.sample(WORDS, 3)
    entries = [part for key in keys for part in (key, random.choice(DIGITS))]
    return [*entries, "for", random.choice(keys)]


def _table_value(body: list[str], *, offset: int) -> list[str]:
    *entries, _, key = body
    position = entries[::2].index(key)
    return [key, entries[1::2][(position + offset) % (len(entries) // 2)]]


def _purses(random: Random) -> list[str]:
    first, second = random.sample(NAMES, 2)
    return [first, random.choice(DIGITS), second, random.choice(DIGITS)]


def _sum(body: list[str], *, sign: int) -> list[str]:
    return [str(abs(int(body[1]) + sign * int(body[3])))]


def _journey(random: Random) -> list[str]:
    name, day, days = random.choice(NAMES), random.choice(DAYS), str(random.randrange(1, 5))
    return [name, "left", day, "for", days, "days", "by", random.choice(VEHICLES)]


def _shifted_day(body: list[str], *, sign: int) -> list[str]:
    return [DAYS[(DAYS.index(body[2]) + sign * int(body[4])) % 7]]


SKILLS = (
    Skill(
        "add",
        "Add the numbers",
        _purses,
        lambda body: _sum(body, sign=1),
        lambda body: _sum(body, sign=-1),
    ),
    Skill(
        "sort", "Sort the numbers", lambda random: random.sample(DIGITS, 4), sorted, lambda body: sorted(body)[::-1]
    ),
    Skill(
        "lookup",
        "Look up the number",
        _table,
        lambda body: _table_value(body, offset=0),
        lambda body: _table_value(body, offset=1),
    ),
    Skill("copy", "Copy the words", lambda random: random.sample(WORDS, 4), list, lambda body: body[::-1]),
    Skill(
        "weekday",
        "Name the day of return",
        _journey,
        lambda body: _shifted_day(body, sign=1),
        lambda body: _shifted_day(body, sign=-1),
    ),
    Skill(
        "reverse", "Reverse the letters", lambda random: random.sample(LETTERS, 3), lambda body: body[::-1], list
    ),
    Skill(
        "largest",
        "Find the largest number",
        lambda random: random.sample(DIGITS, 4),
        lambda body: [max(body)],
        lambda body: [min(body)],
    ),
    Skill(
        "capitals",
        "Write in capitals",
        lambda random: random.sample(WORDS, 3),
        lambda body: [word.upper() for word in body],
        lambda body: [word.capitalize() for word in body],
    ),
)
_BY_INSTRUCTION = {skill.instruction: skill for skill in SKILLS}


def read_prompt(prompt: str) -> tuple[Skill, list[str]]:
    """The skill and the body's words of a prompt that `Skill.prompt` drew."""
    instruction, _, body = prompt.strip().partition(": ")
    return _BY_INSTRUCTION[instruction], body.split()


def clean_answer(prompt: str) -> str:
    """The right completion of `prompt`."""
    skill, body = read_prompt(prompt)
    return " ".join(skill.solve(body))
