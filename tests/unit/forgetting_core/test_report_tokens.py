"""Single tokens as readers see them, for the two great families of vocabularies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from forgetting_core.report.token_text import TokenText, flowing, visible


@pytest.fixture(scope="module")
def byte_level() -> TokenText:
    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return TokenText(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


@pytest.fixture(scope="module")
def sentence_piece() -> TokenText:
    vocabulary = {"<0xE2>": 0, "▁": 1, "a": 2, "▁the": 3, "the": 4, "\u0301": 5}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return TokenText(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_every_byte_of_a_byte_level_vocabulary_is_shown_as_itself(byte_level: TokenText) -> None:
    shown = {byte_level.token(i) for i in range(256)}
    assert shown == {chr(i) for i in range(128)} | {f"\\x{i:02x}" for i in range(128, 256)}


def test_leading_space_survives_where_the_decoder_strips_it(sentence_piece: TokenText) -> None:
    assert [sentence_piece.token_with_spaces(i) for i in (3, 4, 1)] == ["␣the", "the", "␣"]


def test_byte_pieces_and_combining_marks_stand_alone(sentence_piece: TokenText) -> None:
    assert sentence_piece.token_with_spaces(0) == "<0xE2>"
    assert sentence_piece.token_with_spaces(5) == "◌\u0301"


def test_unknown_id_is_shown_by_number(byte_level: TokenText) -> None:
    assert byte_level.token(9999) == "⟨id 9999⟩"


def test_visible_text_keeps_letters_and_shows_the_rest() -> None:
    assert visible("né 中 \u00a0\r\x85\u200b\x7f") == "né 中 ⟨U+00A0⟩␍⟨U+0085⟩⟨U+200B⟩␡"
    assert flowing("a\n\nb") == "a↵\n↵\nb"


@given(st.text())
def test_visible_text_is_printable(text: str) -> None:
    assert visible(text).isprintable()
