"""The rules for new passwords: long enough, not common, not made of the user's own data.

There are no composition rules, and no maximum except the body's (NIST SP 800-63B-4, 3.1.1.2; ASVS
5.0, V6.2.1, 6.2.4, 6.2.5, 6.2.9, 6.2.11). Logins do not apply them: existing passwords still work.

The list of common passwords (source: `common_passwords.LICENSE`) is read by the first sign-up or
change, in about 2 ms, and searched as one text, in 0.05 ms: a set would take 2 MB.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from shared.errors import InvalidInput
from shared.formats.unicode import normalized

_LIST = Path(__file__).with_name("common_passwords.txt.gz")
_APP = "AI-Coder"
_WORD_MIN = 4
"""Shorter words occur in too many passwords by chance."""
_LETTERS_LEFT = 4
"""Digits and signs do not count: a year or `!` after a name is easy to guess."""


def check_new_password(
    password: str, *, min_length: int, field: str, email: str, name: str | None
) -> None:
    """Raise InvalidInput for `field`, with the reason, if the password is too weak.

    The length is in code points after NFC; comparisons use NFKC and case folding. `email` is the
    user's email key.
    """
    if len(normalized("NFC", password)) < min_length:
        raise InvalidInput(field, f"The password must have at least {min_length} characters")
    folded = _folded(password)
    if b"\n%b\n" % folded.encode() in _common_passwords():
        raise InvalidInput(
            field, "This password is among the most common ones. Please choose another one."
        )
    if _is_made_of(_context_words(email, name), folded):
        raise InvalidInput(
            field,
            "This password is too close to your address, your name or this application's. "
            "Please choose another one.",
        )


def _is_made_of(words: set[str], folded: str) -> bool:
    """Tell whether almost nothing is left without the words, digits and signs."""
    squeezed = left = _squeezed(folded)
    for word in sorted(words, key=len, reverse=True):
        left = left.replace(word, "")
    return left != squeezed and sum(map(str.isalpha, left)) < _LETTERS_LEFT


def _context_words(email: str, name: str | None) -> set[str]:
    """Give the address, the name, this application's name, and the words in them.

    The top-level domain is not a word: it says nothing about the user.
    """
    email, name, app = (_folded(text) for text in (email, name or "", _APP))
    local, _, domain = email.rpartition("@")
    labels, _, _ = domain.rpartition(".")
    parts = re.findall(r"[^\W\d_]+", f"{local} {labels} {name}")
    wholes = (email, local, domain, labels, name, app)
    return {word for text in (*wholes, *parts) if len(word := _squeezed(text)) >= _WORD_MIN}


def _folded(text: str) -> str:
    return normalized("NFKC", text).casefold()


def _squeezed(folded: str) -> str:
    """Remove everything except letters and digits."""
    return "".join(filter(str.isalnum, folded))


@functools.cache
def _common_passwords() -> bytes:
    """Read the list: one password per line, in the form of `_folded`."""
    import gzip

    return b"\n" + gzip.decompress(_LIST.read_bytes())
