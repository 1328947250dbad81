"""The text formats of stored password hashes: bcrypt's own, and passlib's `bcrypt_sha256`.

Those that came from other systems are in `shared.formats.foreign_hashes`.
"""

from __future__ import annotations

import re

MIN_ROUNDS, MAX_ROUNDS = 4, 14
"""A stored hash of a higher cost is not computed: `$2b$16$` takes 4 s, `$2b$31$` a day."""

BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
BCRYPT_SHA256 = re.compile(
    r"\$bcrypt-sha256\$v=2,t=2b,r=([0-9]{1,2})\$([./A-Za-z0-9]{22})\$([./A-Za-z0-9]{31})"
)


def hash_problem(stored: str) -> str | None:
    """Say in a sentence why no password could ever be verified by a stored hash; else None."""
    if found := BCRYPT.fullmatch(stored) or BCRYPT_SHA256.fullmatch(stored):
        return bcrypt_problem(found)
    from shared.formats import foreign_hashes  # Most users have one of ours.

    try:
        foreign_hashes.parse(stored)
    except foreign_hashes.UnusableHash as error:
        return str(error)
    return None


def bcrypt_problem(found: re.Match[str]) -> str | None:
    """Do the same for what is bcrypt's by its form."""
    if not MIN_ROUNDS <= int(found[1]) <= MAX_ROUNDS:
        return f"The password's hash has a cost outside {MIN_ROUNDS} to {MAX_ROUNDS}."
    return None
