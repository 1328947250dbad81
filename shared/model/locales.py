"""The languages in which we write to people."""

from __future__ import annotations

import re

LOCALES = ("en", "de")
DEFAULT_LOCALE = "en"

_MAX_LENGTH = 1000
_RANGE = re.compile(
    r"[ \t]*(?P<language>[a-z]{1,8})(?:-[a-z0-9]{1,8})*"
    r"(?:[ \t]*;[ \t]*q=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*",
    re.ASCII | re.IGNORECASE,
)
"""A language range and its weight (RFC 9110, sections 12.4.2 and 12.5.4)."""


def preferred_locale(accept_language: str | None) -> str | None:
    """Give the one of our languages that a browser prefers; None if it names none of them.

    A language stands for all its regions: `de-AT` is `de`. Of equal weights the first counts, `*`
    names no language, and what is malformed, or longer than any browser's header, says nothing.
    """
    if accept_language is None or len(accept_language) > _MAX_LENGTH:
        return None
    best, weight_of_best = None, 0.0
    for element in accept_language.split(","):
        found = _RANGE.fullmatch(element)
        if not found or (language := found["language"].lower()) not in LOCALES:
            continue
        weight = float(found["weight"] or 1)
        if weight > weight_of_best:
            best, weight_of_best = language, weight
    return best
