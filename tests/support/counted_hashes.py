"""Entry points for the emulator that count, in a file, each password hash that is computed.

A line is `real` where the password was compared with a user's hash, and `dummy` otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bcrypt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import main

_compute = bcrypt.checkpw


def _count(password: bytes, hashed_password: bytes) -> bool:
    outcome = _compute(password, hashed_password)  # What bcrypt refuses at once is not counted.
    with Path(os.environ["TEST_HASHES"]).open("a") as file:
        file.write("dummy\n" if hashed_password.endswith(b"." * 53) else "real\n")
    return outcome


bcrypt.checkpw = _count
api = main.api
