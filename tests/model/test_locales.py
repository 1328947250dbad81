"""Which of our languages a browser asks for."""

from __future__ import annotations

import time

import pytest

from shared.model.locales import preferred_locale

HEADERS = {
    "de": "de",
    "DE-at": "de",
    "de-Latn-CH-1996": "de",
    "en-US,en;q=0.9": "en",
    "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7": "de",
    "en;q=0.7, de;q=0.8": "de",
    "en;q=0.8 \t;q=0.9, de;q=0.1": "de",
    "fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5": "en",
    "en;q=0.5,de;q=0.5": "en",
    "de ; q=1.000 , en;q=1": "de",
    "en;Q=0.1,de;q=0.2": "de",
    "en;q=0, de;q=0.001": "de",
    "de;q=0": None,
    "de;q=0.000, fr": None,
    "fr, it;q=0.5": None,
    "*": None,
    "": None,
    ",, ,de,": "de",
}
MALFORMED = (
    "deutsch",
    "den",
    "d e",
    "de_AT",
    "de-",
    "-de",
    "de;q=1.1",
    "de;q=2",
    "de;q=-1",
    "de;q=0.1234",
    "de;q=nan",
    "de;q=",
    "de;q",
    "de;q = 1",
    "de;v=1",
    "de\n",
    "de\0",
    "d\u0435",  # its second letter is Cyrillic
    "de-\u0661",
)


@pytest.mark.parametrize(("header", "locale"), HEADERS.items())
def test_the_language_with_the_largest_weight_is_preferred(header: str, locale: str | None) -> None:
    assert preferred_locale(header) == locale


def test_who_sends_no_header_prefers_nothing() -> None:
    assert preferred_locale(None) is None


@pytest.mark.parametrize("header", MALFORMED)
def test_what_is_malformed_says_nothing_and_spoils_nothing(header: str) -> None:
    assert preferred_locale(header) is None
    assert preferred_locale(f"{header},en;q=0.1") == "en"


@pytest.mark.parametrize("unit", ["de,", "de-", "a-a", " ", ";q=0.", "de;q=1 ", "\t;", "*"])
def test_a_hostile_header_costs_no_time(unit: str) -> None:
    start = time.process_time()
    assert preferred_locale(unit * 100_000) is None
    for length in range(900, 1001):
        preferred_locale((unit * 1000)[:length])
    assert time.process_time() - start < 1
