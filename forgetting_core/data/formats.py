"""What the fields of a raw row mean: its format is recognised from its columns and its values are checked.

Everything that is text becomes a `Conversation`, so that the templates know one shape only; rows that bring their
own `input_ids` and `labels` become `Tokens` at once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from forgetting_core.data.bounds import MIB, ONE_ROW, ROW_BYTES
from forgetting_core.data.rows import RawRow, describe
from forgetting_core.errors import RowError
from forgetting_core.tables import IGNORE_INDEX

Role = Literal["system", "user", "assistant"]
FORMATS: Mapping[str, tuple[str, ...]] = {
    "pre-tokenised": ("input_ids", "labels"),
    "messages": ("messages",),
    "prompt and completion": ("prompt", "completion"),
    "Alpaca": ("instruction", "output"),
}
"""Required fields of each format; the first whose fields are all there is taken."""
_LARGEST_ID = 2**31 - 1
MOST_MESSAGES = 1000
"""Of a conversation: finding its responses renders it once for each."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of text."""

    place: str
    turns: tuple[Turn, ...]
    noise: tuple[tuple[int, int], ...] | None = None
    """Planted noise: [start, end) character spans within the last turn's content."""

    @property
    def characters(self) -> int:
        """Of all turns."""
        return sum(len(turn.content) for turn in self.turns)

    def empty_answers(self) -> int:
        """How many assistant turns are empty."""
        return sum(turn.role == "assistant" and not turn.content for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised row; all arrays have one entry per token."""

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    """`IGNORE_INDEX` where not a response token, else the token's own id (not shifted)."""
    noise: npt.NDArray[np.int8] | None = None
    """1 where planted noise."""


def recognise(row: RawRow) -> Conversation | Tokens:
    """The row in the project's terms. Raises `RowError` naming file, row, field, what was expected and found."""
    present = {name for name, value in row.fields.items() if value is not None}
    for name, required in FORMATS.items():
        if present.issuperset(required):
            return _bounded(row, _READERS[name](row))
    for required in FORMATS.values():
        partial = [field for field in required if field in row.fields]
        if partial:
            missing = next(field for field in required if field not in present)
            if missing in row.fields:
                raise _wrong(row, missing, "a value", None)
            raise RowError(
                row.place,
                f"the field `{missing}` is missing, which a row with `{partial[0]}` needs; "
                f"found only {_columns(row)}",
            )
    accepted = "; ".join(" + ".join(f"`{field}`" for field in required) for required in FORMATS.values())
    raise RowError(row.place, f"no format recognised; found {_columns(row)}, accepted are {accepted}")


def _bounded(row: RawRow, read: Conversation | Tokens) -> Conversation | Tokens:
    if isinstance(read, Conversation) and read.characters > ROW_BYTES:
        fault = f"{read.characters:,} characters of text, more than {ROW_BYTES // MIB} Mi; {ONE_ROW}"
        raise RowError(row.place, fault)
    return read


def _columns(row: RawRow) -> str:
    return "the fields " + ", ".join(f"`{name}`" for name in row.fields) if row.fields else "no field at all"


def _wrong(row: RawRow, field: str, expected: str, found: Any) -> RowError:
    return RowError(row.place, f"field `{field}`: expected {expected}, found {describe(found)}")


def _text(row: RawRow, field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(row, field, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            row.place,
            f"field `{field}`: expected Unicode text, found an unpaired surrogate "
            f"(\\u{ord(value[error.start]):04x}) at character {error.start}",
        ) from error
    return value


def _messages(row: RawRow) -> Conversation:
    if row.fields.get("noise") is not None:
        raise RowError(
            row.place, "field `noise`: its spans are within `completion`, but the row has `messages`; drop one"
        )
    messages = row.fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise _wrong(row, "messages", "a list of at least one message", messages)
    if len(messages) > MOST_MESSAGES:
        raise _wrong(row, "messages", f"at most {MOST_MESSAGES:,} messages; cut the conversation", messages)
    return Conversation(row.place, tuple(_turn(row, f"messages[{i}]", item) for i, item in enumerate(messages)))


def _turn(row: RawRow, field: str, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise _wrong(row, field, "an object with `role` and `content`", message)
    for part in ("role", "content"):
        if part not in message:
            raise _wrong(row, f"{field}.{part}", "a string, but the field is missing", message)
    role = message["role"]
    if role not in get_args(Role):
        raise _wrong(row, f"{field}.role", "one of 'system', 'user', 'assistant'", role)
    return Turn(cast(Role, role), _text(row, f"{field}.content", message["content"]))


def _prompt_completion(row: RawRow) -> Conversation:
    prompt = _text(row, "prompt", row.fields["prompt"])
    return _single_turn(row, prompt, _text(row, "completion", row.fields["completion"]))


def _alpaca(row: RawRow) -> Conversation:
    prompt = _text(row, "instruction", row.fields["instruction"])
    if row.fields.get("input") is not None and (extra := _text(row, "input", row.fields["input"])):
        prompt = f"{prompt}\n\n{extra}"
    return _single_turn(row, prompt, _text(row, "output", row.fields["output"]))


def _single_turn(row: RawRow, prompt: str, completion: str) -> Conversation:
    noise = row.fields.get("noise")
    spans = None if noise is None else tuple(_spans(row, noise, len(completion)))
    return Conversation(row.place, (Turn("user", prompt), Turn("assistant", completion)), spans)


def _spans(row: RawRow, noise: Any, length: int) -> Iterator[tuple[int, int]]:
    if not isinstance(noise, list):
        raise _wrong(row, "noise", "a list of [start, end) character spans", noise)
    for i, span in enumerate(noise):
        if not (isinstance(span, list) and len(span) == 2 and all(type(edge) is int for edge in span)):
            raise _wrong(row, f"noise[{i}]", "a pair of character positions", span)
        start, end = span
        if not 0 <= start <= end <= length:
            raise RowError(
                row.place,
                f"field `noise[{i}]`: expected a span within the completion's {length} characters, "
                f"found [{start}, {end})",
            )
        yield start, end


def _tokens(row: RawRow) -> Tokens:
    input_ids = _integers(row, "input_ids", 0)
    labels = _integers(row, "labels", IGNORE_INDEX)
    _same_length(row, input_ids, "labels", labels)
    if not len(input_ids):
        raise _wrong(row, "input_ids", "at least one token id", row.fields["input_ids"])
    odd = np.flatnonzero((labels != IGNORE_INDEX) & (labels != input_ids))
    if len(odd):
        raise RowError(
            row.place,
            f"field `labels[{odd[0]}]`: expected {IGNORE_INDEX} or the token's own id {input_ids[odd[0]]} "
            f"(labels are not shifted), found {labels[odd[0]]}",
        )
    noise = None
    if row.fields.get("noise") is not None:
        noise = _integers(row, "noise", 0, largest=1).astype(np.int8)
        _same_length(row, input_ids, "noise", noise)
    return Tokens(input_ids.astype(np.int32), labels.astype(np.int32), noise)


def _integers(row: RawRow, field: str, smallest: int, largest: int = _LARGEST_ID) -> npt.NDArray[np.int64]:
    values = row.fields[field]
    if not isinstance(values, list):
        raise _wrong(row, field, "a list of integers", values)
    for i, value in enumerate(values):
        if type(value) is not int or not smallest <= value <= largest:
            raise _wrong(row, f"{field}[{i}]", f"an integer from {smallest} to {largest}", value)
    return np.array(values, dtype=np.int64)


def _same_length(row: RawRow, input_ids: npt.NDArray[np.int64], field: str, values: npt.NDArray[Any]) -> None:
    if len(values) != len(input_ids):
        raise RowError(
            row.place,
            f"field `{field}`: expected one entry per token, {len(input_ids)} as in `input_ids`, "
            f"found {len(values)}",
        )


_READERS: Mapping[str, Callable[[RawRow], Conversation | Tokens]] = {
    "pre-tokenised": _tokens,
    "messages": _messages,
    "prompt and completion": _prompt_completion,
    "Alpaca": _alpaca,
}
