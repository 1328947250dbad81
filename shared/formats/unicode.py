"""Unicode's normal forms of text from outside, in a time that grows only with its length."""

from __future__ import annotations

import unicodedata
from typing import Literal

MAX_MARKS = 30
"""Combining marks in a row; no language has as many (UAX #15, section 13, Stream-Safe Text)."""


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Normalise, but leave text with more marks in a row as it is.

    They would be sorted in a time that grows with the square of their number.
    """
    if text.isascii():
        return text
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > MAX_MARKS:
            return text
    return unicodedata.normalize(form, text)
