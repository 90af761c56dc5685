"""Kinds of tokens: is it the words that are called negative, the numbers, or the formatting?"""

import unicodedata

WORD, NUMBER, PUNCTUATION = "word", "number", "punctuation and symbols"
WHITE_SPACE, SPECIAL, OTHER = "white space and format", "special and end of text", "other"
TOKEN_CLASSES = (WORD, NUMBER, PUNCTUATION, WHITE_SPACE, SPECIAL, OTHER)
"""The order of the table."""
_PUNCTUATION = {"Sm", "Sc", "Sk"}
"""Unicode categories of symbols that text and code use as punctuation: + $ ^ and their like."""


def class_of_text(text: str) -> str:
    """The class of a token's text: a letter makes it a word, else a digit a number, else punctuation counts.

    White space and format is what leaves no ink: spaces, controls, format characters. Other is the rest: pictures
    and marks on their own.
    """
    categories = {unicodedata.category(char) for char in text}
    kinds = {category[0] for category in categories}
    if "L" in kinds:
        return WORD
    if "N" in kinds:
        return NUMBER
    if "P" in kinds or categories & _PUNCTUATION:
        return PUNCTUATION
    return WHITE_SPACE if kinds and kinds <= {"C", "Z"} else OTHER
