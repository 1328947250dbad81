"""What a hash of another system costs at the bounds of `shared.formats.foreign_hashes`, and memory.

Each scheme is verified once at its bound, by the longest password that its maker takes, in CPU time
of all threads, which other work on the machine prolongs least.
"""

from __future__ import annotations

import subprocess
import sys
import time

from bench.report import Measurement
from bench.servers import process_environment
from shared.credentials.foreign_hashes import matches
from shared.formats import foreign_hashes, hash_recognition
from shared.formats.foreign_hashes import (
    DIGEST_BYTES,
    ITOA64,
    MAX_ARGON2ID,
    MAX_DRUPAL,
    MAX_MEMORY,
    MAX_PBKDF2,
    MAX_PHPASS,
    MAX_SCRYPT,
    MAX_SCRYPT_P,
)
from shared.formats.password_hashes import MAX_ROUNDS
from tests.support.emulator import ROOT

SECONDS = 1.0
MEGABYTES = 160
"""The budget of 128 MiB, and what else 200 logins on 32 threads need."""

_SALT, _KEY = bytes(16), bytes(64)
_LONGEST = 16_000
"""Bytes of a password that fit into a request."""

IN_FLIGHT = """
import re
from concurrent.futures import ThreadPoolExecutor
from shared.credentials.passwords import PasswordHasher
from tests.support.foreign_hashes import FOREIGN, PASSWORD, PEPPER

def resident(what):
    with open("/proc/self/status") as file:  # getrusage's peak begins with the parent's.
        return int(re.search(rf"{what}:\\s*(\\d+) kB", file.read())[1]) * 1024 / 1e6

hasher, every = PasswordHasher(4, concurrency=8, peppers=(PEPPER,)), [*FOREIGN.values()]
assert hasher.verify(PASSWORD, every[0])
before = resident("VmRSS")
with ThreadPoolExecutor(32) as pool:
    assert all(pool.map(lambda n: hasher.verify(PASSWORD, every[n % len(every)]), range(200)))
print(resident("VmHWM") - before)
"""


def at_bounds() -> dict[str, tuple[str, int]]:
    """Give the stored text at each bound, and the bytes of the longest password."""
    n = MAX_MEMORY // 128 // 8
    found = {
        "scrypt, N = 2^17, r = 8": hash_recognition.scrypt(n, 8, MAX_SCRYPT // n // 8, _SALT, _KEY),
        "scrypt, p = 32": hash_recognition.scrypt(
            MAX_SCRYPT // MAX_SCRYPT_P // 8, 8, MAX_SCRYPT_P, _SALT, _KEY
        ),
    }
    for memory, lanes in ((MAX_MEMORY // 1024, 1), (MAX_MEMORY // 1024, 8), (1024, 1)):
        found[f"argon2id, m = {memory}, p = {lanes}"] = hash_recognition.argon2id(
            memory=memory, passes=MAX_ARGON2ID // memory, lanes=lanes, salt=_SALT, key=_KEY
        )
    for digest, iterations in MAX_PBKDF2.items():
        key = bytes(DIGEST_BYTES[digest])
        found[f"PBKDF2, {digest}"] = hash_recognition.pbkdf2(digest, iterations, _SALT, key)
    found["bcrypt"] = f"{{trim}}$2b${MAX_ROUNDS}${'.' * 53}"
    longest = {name: (stored, _LONGEST) for name, stored in found.items()}
    longest["phpass"] = f"$P${ITOA64[MAX_PHPASS]}{'.' * 30}", 4096
    longest["Drupal 7"] = f"$S${ITOA64[MAX_DRUPAL]}{'.' * 51}", 512
    return longest


def measure(rounds: int) -> list[Measurement]:
    """Measure the time of each at its bound, and the memory of 200 mixed ones at once."""
    measurements = []
    for name, (stored, length) in at_bounds().items():
        parsed, seconds = foreign_hashes.parse(stored), []
        for _ in range(rounds):
            began = time.process_time()
            matches("x" * length, parsed, ())
            seconds.append(time.process_time() - began)
        measurements.append(
            Measurement(name=f"{name}: at its bound", unit="s", ours=seconds, at_most=SECONDS)
        )
    used = [float(_in_flight()) for _ in range(rounds)]
    return [
        *measurements,
        Measurement(
            name="200 logins of mixed schemes at once: more memory",
            unit="MB",
            ours=used,
            at_most=MEGABYTES,
        ),
    ]


def _in_flight() -> str:
    command = [sys.executable, "-c", IN_FLIGHT]
    return subprocess.run(
        command, cwd=ROOT, env=process_environment(), capture_output=True, text=True, check=True
    ).stdout
