"""Text from outside is normalised, but for what would take long."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.formats.unicode import MAX_MARKS, normalized


@given(st.text())
def test_it_is_unicodes_own_normal_form(text: str) -> None:
    assert normalized("NFC", text) == unicodedata.normalize("NFC", text)
    assert normalized("NFKC", text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("text", ["e\u0301" * 5000, "\u1fae" * 5000, "a" + "\u0323\u0301" * 15])
def test_as_many_marks_as_there_are_in_any_language_are_put_in_order(text: str) -> None:
    assert normalized("NFC", text) == unicodedata.normalize("NFC", text)


def test_more_marks_than_in_any_language_stay_as_they_are() -> None:
    text = "a" + "\u0301" * MAX_MARKS + "\u0323"
    assert normalized("NFC", text) == text
    assert unicodedata.normalize("NFC", text) != text
