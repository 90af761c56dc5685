"""What an item of each known benchmark holds, checked before anything is asked of a model.

The harness finds a missing field by failing somewhere inside, and does not find a wrong label at all: an answer
that is null is never given, and the accuracy is 0.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forgetting_core.data.rows import describe, read_rows
from forgetting_core.errors import InputError, brief

Texts = Annotated[list[str], Field(min_length=1)]


class Item(BaseModel):
    """Fields that prompts and answers are made of; there may be others."""

    model_config = ConfigDict(strict=True)


class AsdivItem(Item):
    """A word problem."""

    body: str
    question: str
    answer: str


class BoolqItem(Item):
    """A question to answer with yes or no."""

    question: str
    passage: str
    label: Literal[0, 1]


class LogiqaItem(Item):
    """A question with four answers."""

    context: str
    question: str
    options: Annotated[list[str], Field(min_length=4, max_length=4)]
    label: Literal["a", "b", "c", "d"]


class Targets(Item):
    """Answers, and which are right."""

    choices: Texts
    labels: list[Literal[0, 1]]

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if len(self.choices) != len(self.labels) or 1 not in self.labels:
            raise ValueError("expected a label for each of the choices, 1 for at least one")
        return self


class TruthfulqaChoiceItem(Item):
    """A question with right and wrong answers."""

    question: str
    mc1_targets: Targets
    mc2_targets: Targets


class TruthfulqaAnswerItem(Item):
    """A question to answer freely."""

    question: str
    correct_answers: Texts
    incorrect_answers: Texts


class Answers(Item):
    """What a text says in answer."""

    text: Texts


class TydiqaItem(Item):
    """A question about a text."""

    id: str
    context: str
    question: str
    answers: Answers


ITEMS: dict[str, type[Item]] = {
    "asdiv.jsonl": AsdivItem,
    "boolq.jsonl": BoolqItem,
    "logiqa_test.jsonl": LogiqaItem,
    "truthfulqa_gen.jsonl": TruthfulqaAnswerItem,
    "truthfulqa_mc.jsonl": TruthfulqaChoiceItem,
    "tydiqa_goldp_train.jsonl": TydiqaItem,
    "tydiqa_goldp_validation.jsonl": TydiqaItem,
}
"""By the file names of `local_tasks.KNOWN_TASKS`."""


def check_items(path: Path) -> None:
    """Read a known benchmark's data file. Raises `InputError` naming line and field of the first wrong item."""
    kind = ITEMS[path.name]
    for row in read_rows(path):
        try:
            kind.model_validate(row.fields)
        except ValidationError as error:
            fault = error.errors()[0]
            raise InputError(
                f"{row.place}: {_fault(fault)}; an item of this benchmark needs {_needs(kind)}"
            ) from None


def _needs(kind: type[Item]) -> str:
    return ", ".join(f"`{name}`" for name in kind.model_fields)


def _fault(fault: Any) -> str:
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"the field `{field}` is missing"
    return f"field `{field}`: {brief(ValueError(fault['msg']))}, found {describe(fault['input'])}"
