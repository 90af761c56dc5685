"""Tokenising a rendered text once: the template's special tokens are parsed, those inside content stay text.

A tokenizer sees one string and cannot know who wrote `</s>` in it. So the content's occurrences are disguised
before rendering, the template's own are then replaced by private sentinels, and a copy of the tokenizer that knows
the sentinels and parses nothing else as special encodes the whole text in one go: no second tokenisation whose
seams would change merges, and the same ids as the tokenizer's own for harmless content.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Encoding, Tokenizer

from forgetting_core.errors import InputError, RowError

# Unicode noncharacters: never assigned, "for internal use" (Unicode 23.7), and no normalizer changes them.
_RESERVED = re.compile("[\ufdd0-\ufdef]")
_DISGUISES = [chr(code) for code in range(0xFDD0, 0xFDE0)]
_SENTINEL_DIGITS = [chr(code) for code in range(0xFDE0, 0xFDF0)]


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The token ids of a text and where each of its characters went."""

    input_ids: npt.NDArray[np.int32]
    """(T,)"""
    _encoding: Encoding

    def tokens_of(self, start: int, end: int) -> slice:
        """The tokens that overlap the characters [start, end), the ones merged across an edge included."""
        inside = range(start, end)
        chars = (token for char in inside if (token := self._encoding.char_to_token(char)) is not None)
        first = next(chars, None)
        if first is None:
            return slice(0, 0)
        backwards = (
            token for char in reversed(inside) if (token := self._encoding.char_to_token(char)) is not None
        )
        last = next(backwards)
        # one character may be several tokens (its bytes), of which `char_to_token` names the first
        following = range(last + 1, len(self.input_ids))
        return slice(first, last + 1 + len(list(takewhile(lambda token: self._start(token) < end, following))))

    def _start(self, token: int) -> int:
        edges = self._encoding.token_to_chars(token)
        assert edges is not None, "only padding has no characters, and nothing is padded here"
        return edges[0]


class Encoder:
    """A fast tokenizer for rendered templates.

    A chat template renders contents from `protect`, and `seal` makes its text ready for `encode`. A text put
    together by hand seals its own markers and takes contents from `checked`.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` of transformers. Raises `InputError` for a slow one, which knows no character offsets."""
        if not tokenizer.is_fast:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer is a slow one ({type(tokenizer).__name__}), without the "
                "character offsets that response tokens are found by; provide a tokenizer.json"
            )
        self.leading_ids = _leading_ids(tokenizer)
        """What the tokenizer puts before a text by itself: BOS, or nothing."""
        self._backend: Tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        # ByteLevel's post-processor takes white space out of the offsets; special tokens are the template's affair
        self._backend.post_processor = None
        added: dict[int, AddedToken] = self._backend.get_added_tokens_decoder()
        special = {token_id: token for token_id, token in added.items() if token.special}
        self._add_sentinels(special)
        unknown = {tokenizer.unk_token, getattr(self._backend.model, "unk_token", None)}
        self._is_special = np.zeros(len(self._real_ids), dtype=bool)
        self._is_special[[i for i, token in special.items() if token.content not in unknown]] = True
        longest_first = sorted((token.content for token in special.values()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._special_starts = re.compile(f"(?=(?:{self._special.pattern}))[\\s\\S]")
        first_characters = sorted({token.content[0] for token in special.values()})
        if len(first_characters) > len(_DISGUISES):
            raise InputError(
                f"{tokenizer.name_or_path}: the special tokens begin with {len(first_characters)} different "
                f"characters; at most {len(_DISGUISES)} are supported"
            )
        self._disguise = dict(zip(first_characters, _DISGUISES, strict=False))

    def _add_sentinels(self, special: dict[int, AddedToken]) -> None:
        self._sentinels = {
            token.content: "".join(_SENTINEL_DIGITS[int(digit, 16)] for digit in f"{number:04x}")
            for number, token in enumerate(special.values())
        }
        self._backend.encode_special_tokens = True
        self._backend.add_tokens(
            [
                AddedToken(
                    self._sentinels[token.content],
                    single_word=token.single_word,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    normalized=token.normalized,
                    special=False,
                )
                for token in special.values()
            ]
        )
        self._real_ids = np.arange(max(self._backend.get_vocab().values(), default=-1) + 1, dtype=np.int32)
        for real, token in special.items():
            self._real_ids[self._backend.token_to_id(self._sentinels[token.content])] = real

    def is_special(self, text: str) -> bool:
        """Whether `text` is one of the special tokens."""
        return text in self._sentinels

    def checked(self, content: str, place: str) -> str:
        """`content`, fit to stand in a sealed text. Raises `RowError` when it could forge a sentinel."""
        if not content.isascii() and (found := _RESERVED.search(content)):
            raise RowError(
                place,
                f"the text has U+{ord(found[0]):04X} at character {found.start()}, a noncharacter that Unicode "
                "keeps for programs' internal use; remove it",
            )
        return content

    def protect(self, content: str, place: str) -> str:
        """`checked` content with its special-token text disguised, character for character, until `seal`."""
        self.checked(content, place)
        if self._special.search(content) is None:
            return content
        return self._special_starts.sub(lambda found: self._disguise[found[0]], content)

    def seal(self, rendered: str) -> str:
        """`rendered` with the special tokens the template wrote as sentinels, and the contents as they were."""
        sealed = self._special.sub(lambda found: self._sentinels[found[0]], rendered)
        for character, disguise in self._disguise.items():
            sealed = sealed.replace(disguise, character)
        return sealed

    def encode(self, sealed: Sequence[str], places: Sequence[str]) -> Iterator[EncodedText]:
        """Tokenise texts from `seal` at once, on all cores, and check them as they are asked for. Adds nothing by
        itself."""
        encodings = self._backend.encode_batch(list(sealed), add_special_tokens=False)
        return (self._encoded(encoding, place) for encoding, place in zip(encodings, places, strict=True))

    def _encoded(self, encoding: Encoding, place: str) -> EncodedText:
        raw = np.array(encoding.ids, dtype=np.int64)
        forged = self._is_special[raw]
        if forged.any():
            token = self._backend.id_to_token(int(raw[forged][0]))
            raise RowError(
                place,
                f"the tokenizer's model turns plain text into the special token {token!r}; "
                "remove that text from the row",
            )
        return EncodedText(self._real_ids[raw], encoding)


def _leading_ids(tokenizer: Any) -> list[int]:
    bare = tokenizer("x", add_special_tokens=False)["input_ids"]
    whole = tokenizer("x")["input_ids"]
    starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return list(whole[: next(starts, 0)])
