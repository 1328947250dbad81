"""Entry points for the emulator that count, in a file, each password hash that is computed.

A line is `real` where a password was compared with a user's hash, `dummy` where with another one,
and `new` where a hash was made.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bcrypt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import main

_compare, _make = bcrypt.checkpw, bcrypt.hashpw


def _count(kind: str) -> None:
    with Path(os.environ["TEST_HASHES"]).open("a") as file:
        file.write(f"{kind}\n")


def _counted_compare(password: bytes, hashed_password: bytes) -> bool:
    outcome = _compare(password, hashed_password)  # What bcrypt refuses at once is not counted.
    _count("dummy" if hashed_password.endswith(b"." * 53) else "real")
    return outcome


def _counted_make(password: bytes, salt: bytes) -> bytes:
    _count("new")
    return _make(password, salt)


bcrypt.checkpw, bcrypt.hashpw = _counted_compare, _counted_make
api = main.api
