r"""The one text in which a password's hash of another system is stored, and its bounds.

    {preparation}$algorithm$costs$salt$key

What a maker does to a password before it is hashed stands first, in braces; most do nothing, and
then there is nothing. Then the hash, as the PHC string format writes it (base64 without padding),
or, for bcrypt, phpass, Drupal 7 and LDAP, as their makers do. A text has one spelling: what
`parse` accepts is what is stored, within the column's 255 characters.

Nothing is computed here. What would take longer than a second, or more than 128 MiB, is refused by
name; `python -m bench --only hashes` measures each at its bound. Loaded where a hash is not one of
bcrypt alone: `shared.formats.password_hashes` comes first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from shared.formats.password_hashes import BCRYPT, bcrypt_problem

MAX_CHARACTERS = 255
"""The width of the column."""
MAX_MEMORY = 128 * 2**20
"""Bytes that one hash may need while it is computed."""

# At its bound each takes at most a second of one CPU, which has SHA extensions, for the longest
# password that its maker allows: 0.6 to 0.95 s where it was measured.
MAX_ARGON2ID = 7 * 2**17
"""KiB of memory times passes."""
MAX_ARGON2ID_LANES = 16
"""Threads, of which HASH_CONCURRENCY does not know."""
MAX_ARGON2ID_PASSES = 64
"""Lanes wait for each other four times a pass, which with little memory takes the longest."""
MAX_SCRYPT = 2**21
"""N times r times p."""
MAX_SCRYPT_R = MAX_SCRYPT_P = 32
MAX_PBKDF2: dict[Digest, int] = {"sha1": 4_000_000, "sha256": 4_000_000, "sha512": 1_800_000}
"""Iterations times blocks of the digest's length."""
MAX_PHPASS = 17
"""The binary logarithm of the iterations, each of which reads the password: of 4 KiB at most."""
MAX_DRUPAL = 19
"""The same for passwords of 512 bytes."""

MIN_KEY_BYTES = 16
"""A key that was cut off would be the key of many passwords."""
Digest = Literal["sha1", "sha256", "sha512"]
DIGEST_BYTES: dict[Digest, int] = {"sha1": 20, "sha256": 32, "sha512": 64}
ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The digits of phpass and Drupal 7."""

_NUMBER, _BASE64 = "(0|[1-9][0-9]{0,9})", "([A-Za-z0-9+/]+)"
_PREPARED = re.compile(
    r"(?:\{(nfkc|trim|wordpress|sha256-hex|trim-md5-hex|pepper:[0-9a-f]{16})\})?(.+)"
)
_ARGON2ID = re.compile(
    rf"\$argon2id\$v=19\$m={_NUMBER},t={_NUMBER},p={_NUMBER}\${_BASE64}\${_BASE64}"
)
_PBKDF2 = re.compile(rf"\$pbkdf2-(sha1|sha256|sha512)\$i={_NUMBER}\${_BASE64}\${_BASE64}")
_SCRYPT = re.compile(rf"\$scrypt\$ln={_NUMBER},r={_NUMBER},p={_NUMBER}\${_BASE64}\${_BASE64}")
_FIREBASE = re.compile(
    rf"\$firebase-scrypt\$ln={_NUMBER},r={_NUMBER},sep=([A-Za-z0-9+/]*)(?:,k=([0-9a-f]{{16}}))?"
    rf"\${_BASE64}\${_BASE64}"
)
_PHPASS = re.compile(r"\$P\$([./0-9A-Za-z])([./0-9A-Za-z]{8})([./0-9A-Za-z]{22})")
_DRUPAL = re.compile(r"\$S\$([./0-9A-Za-z])([./0-9A-Za-z]{8})([./0-9A-Za-z]{43})")
_LDAP = re.compile(rf"\{{SSHA(256|512|)\}}{_BASE64}=*")

UNKNOWN = "The password's hash is of no form that can be verified."


class UnusableHash(ValueError):
    """No password can be verified by a text; the message is a sentence that quotes none of it."""


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """What a stored text says."""

    algorithm: str
    """argon2id, pbkdf2-sha1, pbkdf2-sha256, pbkdf2-sha512, scrypt, firebase-scrypt, bcrypt, phpass,
    drupal, ssha1, ssha256 or ssha512."""
    costs: tuple[int, ...]
    """m, t, p · iterations · N, r, p · the binary logarithm of the iterations · none."""
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)
    """What to compare with; in digits of its maker for phpass and Drupal; for bcrypt the text."""
    memory: int = 0
    """Bytes that are needed to compute it, where they are worth counting."""
    preparation: str = ""
    """nfkc, trim, wordpress, sha256-hex, trim-md5-hex, pepper, or nothing."""
    pepper: str = ""
    """The fingerprint of the key that is needed, or nothing."""


def parse(stored: str) -> ForeignHash:
    """Read a stored text. Raises UnusableHash for what is none, or out of bounds."""
    found = _PREPARED.fullmatch(stored)
    if found is None or len(stored) > MAX_CHARACTERS:
        raise UnusableHash(UNKNOWN)
    prefix, text = found[1] or "", found[2]
    foreign = _read(text)
    if not prefix:
        if foreign.algorithm == "bcrypt":
            raise UnusableHash(UNKNOWN)  # That is ours, and `password_hashes` knows it.
        return foreign
    preparation, _, pepper = prefix.partition(":")
    if pepper and foreign.algorithm == "firebase-scrypt":
        raise UnusableHash(UNKNOWN)  # Its pepper is no part of the password.
    return replace(foreign, preparation=preparation, pepper=pepper or foreign.pepper)


def _read(text: str) -> ForeignHash:
    for pattern, read in _FAMILIES.items():
        if found := pattern.fullmatch(text):
            return read(found)
    raise UnusableHash(UNKNOWN)


def fingerprint(key: str) -> str:
    """Name a key of PASSWORD_PEPPERS: 64 bits of its SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def digest_named(name: str) -> Digest:
    """Give the digest of a name. Raises UnusableHash for another one."""
    for digest in DIGEST_BYTES:
        if digest == name:
            return digest
    raise UnusableHash(f"The password's hash is made with {name}, which cannot be verified here.")


def base64_bytes(text: str) -> bytes:
    """Decode base64 with or without padding. Raises UnusableHash."""
    digits = text.rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise UnusableHash(UNKNOWN) from None


def base64_text(data: bytes) -> str:
    """Encode as base64 without padding."""
    return base64.b64encode(data).decode().rstrip("=")


def _exact(text: str) -> bytes:
    """Decode what has one spelling: no padding, and no bits beyond the last byte."""
    data = base64_bytes(text)
    if base64_text(data) != text:
        raise UnusableHash(UNKNOWN)
    return data


def _key(text: str) -> bytes:
    key = _exact(text)
    if len(key) < MIN_KEY_BYTES:
        raise UnusableHash(f"The password's hash has a key of fewer than {MIN_KEY_BYTES} bytes.")
    return key


def _within(name: str, cost: str, *, seconds: bool, memory: bool = True) -> None:
    """Refuse by name what is not within the bounds of time, and of memory."""
    for is_within, what in ((memory, "128 MiB"), (seconds, "a second")):
        if not is_within:
            raise UnusableHash(
                f"The password's hash is {name} with {cost}, which takes more than {what}."
            )


def _argon2id(found: re.Match[str]) -> ForeignHash:
    m, t, p = costs = int(found[1]), int(found[2]), int(found[3])
    salt, key = _exact(found[4]), _key(found[5])
    cost = f"m = {m}, t = {t} and p = {p}"
    _within("argon2id", cost, memory=m * 1024 <= MAX_MEMORY, seconds=m * t <= MAX_ARGON2ID)
    is_usual = 1 <= t <= MAX_ARGON2ID_PASSES and 1 <= p <= MAX_ARGON2ID_LANES
    if not (is_usual and m >= 8 * p and len(salt) >= 8):
        raise UnusableHash(
            f"The password's hash is argon2id with {cost}: there must be 1 to "
            f"{MAX_ARGON2ID_PASSES} passes, 1 to {MAX_ARGON2ID_LANES} lanes, 8 KiB for each, and a "
            "salt of 8 bytes."
        )
    return ForeignHash("argon2id", costs, salt, key, m * 1024)


def _pbkdf2(found: re.Match[str]) -> ForeignHash:
    digest, iterations = digest_named(found[1]), int(found[2])
    salt, key = _exact(found[3]), _key(found[4])
    blocks = -(-len(key) // DIGEST_BYTES[digest])
    name = f"PBKDF2 ({digest})"
    cost = f"{iterations} iterations for a key of {len(key)} bytes"
    if not iterations:
        raise UnusableHash(f"The password's hash is {name} without an iteration.")
    _within(name, cost, seconds=iterations * blocks <= MAX_PBKDF2[digest])
    return ForeignHash(f"pbkdf2-{digest}", (iterations,), salt, key)


def _scrypt_costs(name: str, ln: int, r: int, p: int) -> tuple[tuple[int, int, int], int]:
    """Check the costs of scrypt; give them and the bytes of memory."""
    cost = f"N = 2^{ln}, r = {r} and p = {p}"
    if not (ln and 1 <= r <= MAX_SCRYPT_R and 1 <= p <= MAX_SCRYPT_P):
        raise UnusableHash(
            f"The password's hash is {name} with {cost}: N must be 2 or more, r 1 to "
            f"{MAX_SCRYPT_R} and p 1 to {MAX_SCRYPT_P}."
        )
    if ln >= 16 * r:  # RFC 7914, section 6.
        raise UnusableHash(
            f"The password's hash is {name} with {cost}: N must be less than 2^(16 r)."
        )
    n = 2 ** min(ln, 64)  # Not a number of a million digits.
    memory = 128 * n * r
    _within(name, cost, memory=memory <= MAX_MEMORY, seconds=n * r * p <= MAX_SCRYPT)
    return (n, r, p), memory


def _scrypt(found: re.Match[str]) -> ForeignHash:
    costs, memory = _scrypt_costs("scrypt", int(found[1]), int(found[2]), int(found[3]))
    return ForeignHash("scrypt", costs, _exact(found[4]), _key(found[5]), memory)


def _firebase(found: re.Match[str]) -> ForeignHash:
    costs, memory = _scrypt_costs("Firebase's scrypt", int(found[1]), int(found[2]), 1)
    salt = _exact(found[5]) + _exact(found[3])
    key = _key(found[6])
    return ForeignHash("firebase-scrypt", costs, salt, key, memory, pepper=found[4] or "")


def _bcrypt(found: re.Match[str]) -> ForeignHash:
    if problem := bcrypt_problem(found):
        raise UnusableHash(problem)
    return ForeignHash("bcrypt", (int(found[1]),), b"", found[0].encode())


def _iterated(algorithm: str, name: str, most: int) -> Callable[[re.Match[str]], ForeignHash]:
    def read(found: re.Match[str]) -> ForeignHash:
        log2 = ITOA64.index(found[1])
        if log2 < 7:
            raise UnusableHash(f"The password's hash is {name} with fewer than 2^7 iterations.")
        _within(name, f"2^{log2} iterations", seconds=log2 <= most)
        return ForeignHash(algorithm, (log2,), found[2].encode(), found[3].encode())

    return read


def _ldap(found: re.Match[str]) -> ForeignHash:
    digest, data = digest_named(f"sha{found[1] or 1}"), base64_bytes(found[2])
    length = DIGEST_BYTES[digest]
    if len(data) <= length or f"{{SSHA{found[1]}}}{base64.b64encode(data).decode()}" != found[0]:
        raise UnusableHash(UNKNOWN)
    return ForeignHash(f"s{digest}", (), data[length:], data[:length])


_FAMILIES: dict[re.Pattern[str], Callable[[re.Match[str]], ForeignHash]] = {
    _ARGON2ID: _argon2id,
    _PBKDF2: _pbkdf2,
    _SCRYPT: _scrypt,
    _FIREBASE: _firebase,
    BCRYPT: _bcrypt,
    _PHPASS: _iterated("phpass", "phpass", MAX_PHPASS),
    _DRUPAL: _iterated("drupal", "Drupal 7's", MAX_DRUPAL),
    _LDAP: _ldap,
}
