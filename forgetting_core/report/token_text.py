"""Tokens as people can read them: decoded one by one, with nothing invisible left.

A token may be half a character, white space, a control character or one that turns the text around; each gets a
visible stand-in, so that what is on the page is what the model saw.
"""

import unicodedata
from functools import cached_property

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from forgetting_core.report.token_class import OTHER, SPECIAL, class_of_text

NEWLINE, TAB, SPACE = "↵", "⇥", "␣"
REPLACEMENT = "\ufffd"
_BYTE_OF_CHAR = {char: byte for byte, char in bytes_to_unicode().items()}
"""Byte-level vocabularies spell each byte as a printable character."""


def visible(text: str) -> str:
    """`text` with every character that shows nothing replaced by one that does, but for plain spaces.

    Newline ↵, tab ⇥, other ASCII controls their Unicode pictures (␀ …); invisible characters, bidirectional
    overrides and unusual spaces become ⟨U+202E⟩.
    """
    return "".join(map(_visible_char, text))


def _visible_char(char: str) -> str:
    if char == "\n":
        return NEWLINE
    if char == "\t":
        return TAB
    if char < " ":
        return chr(0x2400 + ord(char))
    if char == "\x7f":
        return "␡"
    if char != " " and unicodedata.category(char)[0] in "CZ":
        return f"⟨U+{ord(char):04X}⟩"
    return char


def flowing(text: str) -> str:
    """`visible`, but a newline also breaks the line: for text shown with its white space kept."""
    return f"{NEWLINE}\n".join(map(visible, text.split("\n")))


class TokenText:
    """Decodes tokens of one tokenizer, each on its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def text(self, token_ids: list[int]) -> str:
        """The text of several tokens together, special tokens included."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def token(self, token_id: int) -> str:
        """The text of one token; bytes that are not whole characters as `\\xe2\\x80`."""
        if token_id not in self._known:
            self._known[token_id] = self._decode(token_id)
        return self._known[token_id]

    def token_with_spaces(self, token_id: int) -> str:
        """`visible` text of one token that stands alone: spaces must be seen, a combining mark needs a circle."""
        shown = visible(self.token(token_id)).replace(" ", SPACE)
        return f"◌{shown}" if unicodedata.category(shown[0])[0] == "M" else shown

    def token_class(self, token_id: int) -> str:
        """One of `TOKEN_CLASSES`; bytes that are not whole characters are other."""
        if token_id in self._special:
            return SPECIAL
        text = self._whole_characters(token_id)
        return OTHER if text is None else class_of_text(text)

    @cached_property
    def _special(self) -> set[int]:
        added = self._tokenizer.added_tokens_decoder.items()
        return {*self._tokenizer.all_special_ids, *(token_id for token_id, token in added if token.special)}

    @cached_property
    def _anchor(self) -> list[int]:
        """A token to put in front: SentencePiece drops the leading space of the first one."""
        return list(self._tokenizer.encode("a", add_special_tokens=False))

    def _whole_characters(self, token_id: int) -> str | None:
        """The decoded token; None when it has no text of its own or is a part of a character."""
        before, text = self.text(self._anchor), self.text([*self._anchor, token_id])
        text = text[len(before) :] if text.startswith(before) else self.text([token_id])
        return text if text and REPLACEMENT not in text else None

    def _decode(self, token_id: int) -> str:
        text = self._whole_characters(token_id)
        if text is not None:
            return text
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return f"⟨id {token_id}⟩"
        spelled = [_BYTE_OF_CHAR.get(char, -1) for char in piece]
        if min(spelled, default=-1) >= 0 and max(spelled) > 0x7F:
            return "".join(f"\\x{byte:02x}" for byte in spelled)
        return str(piece) or f"⟨id {token_id}⟩"
