"""Tokens as people can read them: decoded one by one, with nothing invisible left.

A token may be half a character, white space, a control character or one that turns the text around; each gets a
visible stand-in, so that what is on the page is what the model saw.
"""

import unicodedata
from functools import cached_property

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

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

    @cached_property
    def _anchor(self) -> list[int]:
        """A token to put in front: SentencePiece drops the leading space of the first one."""
        return list(self._tokenizer.encode("a", add_special_tokens=False))

    def _decode(self, token_id: int) -> str:
        before, text = self.text(self._anchor), self.text([*self._anchor, token_id])
        text = text[len(before) :] if text.startswith(before) else self.text([token_id])
        if text and REPLACEMENT not in text:
            return text
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return f"⟨id {token_id}⟩"
        spelled = [_BYTE_OF_CHAR.get(char, -1) for char in piece]
        if REPLACEMENT in text and min(spelled) >= 0 and max(spelled) > 0x7F:
            return "".join(f"\\x{byte:02x}" for byte in spelled)
        return str(piece) or f"⟨id {token_id}⟩"
