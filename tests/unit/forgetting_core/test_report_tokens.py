"""Single tokens as readers see them, for the two great families of vocabularies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from forgetting_core.report.token_class import (
    NUMBER,
    OTHER,
    PUNCTUATION,
    SPECIAL,
    WHITE_SPACE,
    WORD,
    class_of_text,
)
from forgetting_core.report.token_text import TokenText, flowing, visible
from tests.tiny import byte_tokenizer


@pytest.fixture(scope="module")
def byte_level() -> TokenText:
    return TokenText(byte_tokenizer())


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the", WORD),
        ("中", WORD),
        ("3rd", WORD),
        (" 42", NUMBER),
        ("½", NUMBER),
        ('",', PUNCTUATION),
        (" +=", PUNCTUATION),
        ("\n\n", WHITE_SPACE),
        ("\u202e", WHITE_SPACE),
        ("\x00", WHITE_SPACE),
        ("🙂", OTHER),
        ("\u0301", OTHER),
        ("", OTHER),
    ],
)
def test_a_letter_makes_a_word_and_ink_decides_the_rest(text: str, expected: str) -> None:
    assert class_of_text(text) == expected


def test_parts_of_characters_and_special_tokens_have_classes_of_their_own(
    byte_level: TokenText, sentence_piece: TokenText
) -> None:
    classes = [byte_level.token_class(i) for i in range(256)]
    assert classes.count(WORD) == 52
    assert classes.count(NUMBER) == 10
    assert classes.count(OTHER) == 128
    assert [sentence_piece.token_class(i) for i in (0, 1, 3)] == [OTHER, WHITE_SPACE, WORD]
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True), AddedToken("<|turn|>", special=True)])
    special = TokenText(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>"))
    assert [special.token_class(i) for i in (0, 1, 2)] == [WORD, SPECIAL, SPECIAL]
