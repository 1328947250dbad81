"""Verifies a password by a hash of another system, exactly as its maker does.

Loaded by the first stored hash that is not one of ours. What is computed was read, and so bounded,
by `shared.formats.foreign_hashes`.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import hmac
from collections.abc import Iterable

import bcrypt

from shared.formats.foreign_hashes import (
    ITOA64,
    ForeignHash,
    UnusableHash,
    base64_bytes,
    fingerprint,
)
from shared.formats.unicode import normalized

_PHP_BLANKS = " \t\n\r\0\x0b"
"""What PHP's trim takes away."""
_MAX_BYTES = {"phpass": 4096, "drupal": 512}
"""Of a password; longer ones are wrong."""
_MAX_BYTES_OF_WORDPRESS = 4096
_BCRYPT_BYTES = 72
"""Every maker lets bcrypt ignore further ones."""
_M_MMAP_THRESHOLD = -3
"""Of <malloc.h>."""


def _return_freed_memory() -> None:
    """Have glibc return each block of 1 MiB or more to the system when it is freed.

    By itself it learns to keep those of up to 32 MiB, in an arena for each thread that had one:
    several times what the hashes need at once. Other C libraries do not.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


_return_freed_memory()


class PepperMissing(Exception):
    """PASSWORD_PEPPERS lacks the key whose fingerprint is the message."""


def matches(password: str, stored: ForeignHash, peppers: Iterable[str]) -> bool:
    """Tell whether the hash is the password's. Raises PepperMissing before anything is computed.

    A password with NUL is wrong: some makers end there, HMAC ignores those at the end, and no
    keyboard has one.
    """
    pepper = _pepper(stored.pepper, peppers)
    try:
        prepared = None if "\0" in password else _prepared(password, stored.preparation, pepper)
    except UnicodeEncodeError:
        prepared = None
    if prepared is None or len(prepared) > _MAX_BYTES.get(stored.algorithm, len(prepared)):
        return False
    if stored.algorithm == "bcrypt":
        return _matches_bcrypt(prepared, stored)
    return hmac.compare_digest(_computed(prepared, stored, pepper), stored.key)


def is_typed_as_hashed(password: str, stored: ForeignHash) -> bool:
    """Tell whether the maker would hash the password just as it was typed.

    With blanks around it or in another normal form it is the same to its maker, but not to us.
    """
    if stored.preparation in ("trim", "wordpress", "trim-md5-hex"):
        return password == password.strip(_PHP_BLANKS)
    if stored.preparation == "nfkc":
        return normalized("NFC", password) == normalized("NFKC", password)
    return True


def _pepper(wanted: str, peppers: Iterable[str]) -> str:
    if not wanted:
        return ""
    for pepper in peppers:
        if fingerprint(pepper) == wanted:
            return pepper
    raise PepperMissing(wanted)


def _prepared(password: str, preparation: str, pepper: str) -> bytes | None:
    """Do what the maker does before hashing; None for what it does not take."""
    if preparation == "nfkc":
        return normalized("NFKC", password).encode()
    if preparation == "sha256-hex":
        return hashlib.sha256(password.encode()).hexdigest().encode()
    if preparation == "pepper":
        return (password + pepper).encode()
    if not preparation:
        return password.encode()
    trimmed = password.strip(_PHP_BLANKS).encode()
    if preparation == "trim-md5-hex":
        return hashlib.md5(trimmed, usedforsecurity=False).hexdigest().encode()
    if preparation == "wordpress":
        if len(trimmed) > _MAX_BYTES_OF_WORDPRESS:
            return None
        return base64.b64encode(hmac.digest(b"wp-sha384", trimmed, "sha384"))
    return trimmed


def _matches_bcrypt(prepared: bytes, stored: ForeignHash) -> bool:
    try:
        return bcrypt.checkpw(prepared[:_BCRYPT_BYTES], stored.key)
    except ValueError:  # bcrypt refuses the salt without hashing.
        return False


def _computed(prepared: bytes, stored: ForeignHash, signer_key: str) -> bytes:
    algorithm, salt = stored.algorithm, stored.salt
    if algorithm.startswith("pbkdf2-"):
        digest, (iterations,) = algorithm.removeprefix("pbkdf2-"), stored.costs
        return hashlib.pbkdf2_hmac(digest, prepared, salt, iterations, len(stored.key))
    if algorithm == "scrypt":
        return _scrypt(prepared, stored, len(stored.key))
    if algorithm == "firebase-scrypt":
        return _firebase(_scrypt(prepared, stored, 32), len(stored.key), signer_key)
    if algorithm == "argon2id":
        return _argon2id(prepared, stored)
    if algorithm == "phpass":
        return _itoa64(_iterated("md5", prepared, stored))
    if algorithm == "drupal":
        return _itoa64(_iterated("sha512", prepared, stored))[:43]
    return hashlib.new(algorithm.removeprefix("s"), prepared + salt, usedforsecurity=False).digest()


def _scrypt(prepared: bytes, stored: ForeignHash, length: int) -> bytes:
    n, r, p = stored.costs
    # OpenSSL's own limit is 32 MiB, and it counts its blocks as well.
    needed = 128 * r * (n + p + 2)
    return hashlib.scrypt(prepared, salt=stored.salt, n=n, r=r, p=p, maxmem=needed, dklen=length)


def _firebase(key: bytes, length: int, signer_key: str) -> bytes:
    """Encrypt the signer key or, where it was taken out of the hash, nothing but zeros."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    try:
        signer = base64_bytes(signer_key) if signer_key else bytes(length)
    except UnusableHash:
        return b""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return encryptor.update(signer) + encryptor.finalize()


def _argon2id(prepared: bytes, stored: ForeignHash) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    memory, passes, lanes = stored.costs
    return Argon2id(
        salt=stored.salt,
        length=len(stored.key),
        iterations=passes,
        lanes=lanes,
        memory_cost=memory,
    ).derive(prepared)


def _iterated(digest: str, prepared: bytes, stored: ForeignHash) -> bytes:
    """Hash as phpass does: once with the salt, then each time what came out with the password."""
    new = getattr(hashlib, digest)
    found: bytes = new(stored.salt + prepared).digest()
    for _ in range(2 ** stored.costs[0]):
        found = new(found + prepared).digest()
    return found


def _itoa64(data: bytes) -> bytes:
    """Write 6 bits a digit, the lowest first, of three bytes at a time."""
    digits = []
    for start in range(0, len(data), 3):
        group = data[start : start + 3]
        bits = int.from_bytes(group, "little")
        digits += [ITOA64[bits >> 6 * place & 63] for place in range(-(-len(group) * 8 // 6))]
    return "".join(digits).encode()
