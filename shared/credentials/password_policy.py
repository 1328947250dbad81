"""What a new password must be: long enough, none of the common ones, and not made of the context.

No rule of composition is asked of it, and no maximum but the body's (NIST SP 800-63B-4, 3.1.1.2;
ASVS 5.0, V6.2.1, 6.2.4, 6.2.5, 6.2.9, 6.2.11). A login asks nothing of all this: what somebody has
already goes on working.

The list of common passwords is read by the first sign-up or change, in some 2 ms, and searched as
it is, in 0.05 ms, because a set of the same would take 2 MB. Where it is from is told in
`common_passwords.LICENSE`.
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
"""Shorter words are in too many passwords by chance."""
_LETTERS_LEFT = 4
"""Digits and signs don't count: a year, a birthday or `!` behind a name is what everybody tries."""


def check_new_password(
    password: str, *, min_length: int, field: str, email: str, name: str | None
) -> None:
    """Raise InvalidInput for `field` where nobody should choose this password, and say why.

    It is counted in code points after NFC, and compared after NFKC and case folding. `email` is
    the user's email key.
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
    """Tell whether, but for the words and what is easily put beside them, nothing is left."""
    squeezed = left = _squeezed(folded)
    for word in sorted(words, key=len, reverse=True):
        left = left.replace(word, "")
    return left != squeezed and sum(map(str.isalpha, left)) < _LETTERS_LEFT


def _context_words(email: str, name: str | None) -> set[str]:
    """Give the address, the name, this application's name, and the words that they consist of.

    The domain's last label is no word of its own: it says nothing of anybody.
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
    """Leave out what may be between words: spaces, dots, hyphens, underscores and all signs."""
    return "".join(filter(str.isalnum, folded))


@functools.cache
def _common_passwords() -> bytes:
    """Read the list: a line each, all of them as `_folded` gives them."""
    import gzip

    return b"\n" + gzip.decompress(_LIST.read_bytes())
