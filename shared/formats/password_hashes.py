"""The text formats of stored password hashes: bcrypt's own, and passlib's `bcrypt_sha256`."""

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
    found = BCRYPT.fullmatch(stored) or BCRYPT_SHA256.fullmatch(stored)
    if not found:
        return "The password's hash is not one of bcrypt."
    if not MIN_ROUNDS <= int(found[1]) <= MAX_ROUNDS:
        return f"The password's hash has a cost outside {MIN_ROUNDS} to {MAX_ROUNDS}."
    return None
