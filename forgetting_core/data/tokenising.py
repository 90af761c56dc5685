"""Raw rows to tokenised rows, with the model's tokenizer, and the check that the model can embed them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from forgetting_core.config import DataConfig
from forgetting_core.data.encoding import Encoder
from forgetting_core.data.formats import Conversation, Tokens, recognise
from forgetting_core.data.rows import RawRow
from forgetting_core.data.templates import Template, make_template, tokenise
from forgetting_core.errors import InputError, RowError
from forgetting_core.model_files import refuse_adapter

BATCH_CHARACTERS = 4 * 2**20
"""Of text that is encoded at once."""


@dataclass(frozen=True, slots=True)
class TokenisedRow:
    """One row, ready to be stored."""

    raw: RawRow
    tokens: Tokens
    cut: bool
    """Whether tokens beyond `data.max_length` were left out."""
    empty_answer: bool
    """Whether an answer has no text, so that its response is the end marker alone."""


class RowTokeniser:
    """Tokenises rows for the model in a folder. The tokenizer is loaded for the first row of text."""

    def __init__(self, data: DataConfig, model: Path, *, trust_remote_code: bool = False) -> None:
        """Raises `InputError` when `model` has no usable config.json."""
        self._data = data
        self._model = model
        self._embedding_rows = _embedding_rows(model, trust_remote_code)

    def __call__(self, rows: Sequence[RawRow]) -> Iterator[TokenisedRow]:
        """The tokenised rows, in order. The tokenizer has run when this returns; the rest is done row by row.

        Raises `RowError` for a row that is wrong, and `InputError` when the model is, or does not suit them.
        """
        recognised = [recognise(row) for row in rows]
        conversations = [item for item in recognised if isinstance(item, Conversation)]
        texts = self._from_text(conversations) if conversations else iter([])
        return (self._tokenised(row, item, texts) for row, item in zip(rows, recognised, strict=True))

    def check(self, rows: Sequence[RawRow]) -> None:
        """Raise what tokenising `rows` raises."""
        for _ in self(rows):
            pass

    def _tokenised(
        self, row: RawRow, item: Conversation | Tokens, texts: Iterator[tuple[Tokens, int]]
    ) -> TokenisedRow:
        if isinstance(item, Conversation):
            tokens, length = next(texts)
            empty = item.empty_answers() > 0
        else:
            tokens, length, empty = self._cut(item), len(item.input_ids), False
        self._check_ids(row, tokens, own=isinstance(item, Tokens))
        return TokenisedRow(row, tokens, length > self._data.max_length, empty)

    def _from_text(self, conversations: Sequence[Conversation]) -> Iterator[tuple[Tokens, int]]:
        encoder, template = self._text_parts
        encoded = [tokenise(batch, template, encoder, self._data.max_length) for batch in _batches(conversations)]
        return chain.from_iterable(encoded)

    @cached_property
    def _text_parts(self) -> tuple[Encoder, Template]:
        from forgetting_core.models import load_tokenizer

        tokenizer = load_tokenizer(self._model)
        encoder = Encoder(tokenizer)
        return encoder, make_template(self._data.template, tokenizer, encoder)

    def _cut(self, tokens: Tokens) -> Tokens:
        end = self._data.max_length
        noise = None if tokens.noise is None else tokens.noise[:end]
        return Tokens(tokens.input_ids[:end], tokens.labels[:end], noise)

    def _check_ids(self, row: RawRow, tokens: Tokens, own: bool) -> None:
        """`own`: the row brought its ids, so that they are not the tokenizer's fault."""
        largest = int(tokens.input_ids.max(initial=0))
        if largest >= self._embedding_rows:
            fault = (
                f"token id {largest} is beyond the model's {self._embedding_rows} embedding rows "
                f"(`vocab_size` in its config.json); tokenizer and model do not belong together"
            )
            raise RowError(row.place, fault) if own else InputError(f"{row.place}: {fault}")


def _batches(conversations: Sequence[Conversation]) -> Iterator[list[Conversation]]:
    """In order, as many at a time as have `BATCH_CHARACTERS` between them, or one."""
    batch: list[Conversation] = []
    size = 0
    for conversation in conversations:
        if batch and size + conversation.characters > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(conversation)
        size += conversation.characters
    if batch:
        yield batch


def _embedding_rows(model: Path, trust_remote_code: bool) -> int:
    """`vocab_size` of the text model; padded embeddings make it larger than the tokenizer's vocabulary."""
    from forgetting_core.models import load_config

    refuse_adapter(model)
    config = load_config(model, trust_remote_code=trust_remote_code)
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        raise InputError(f"{model / 'config.json'}: field `vocab_size`: expected an integer, found {size!r}")
    return size
