"""Encrypts what must be read again, such as the secret of a second factor: AES-256-GCM.

A text is bound to its user, so that one that is copied into another row cannot be read there. The
nonce is a keyed hash of user and text: the same text of the same user is encrypted to the same, so
that an import that is repeated finds nothing changed, and no two texts share a nonce (as in RFC
8452, section 1, whose mode OpenSSL has only of late). What equals what is no secret within a row.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2.


class CannotDecrypt(Exception):
    """The text was encrypted under another key, for another user, or is altered."""


class Encryption:
    """Encrypts with the first key, and decrypts with all. Thread-safe."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take keys of 32 bytes in the order of `ENCRYPTION_KEY`."""
        self._keys = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])

    def encrypt(self, text: str, user_id: str) -> str:
        """Encrypt a text of a user: the key's id, a dot, and nonce, ciphertext and tag."""
        key, data = self._keys[self._first], text.encode()
        nonce = _subkey(key, "nonce", user_id.encode() + b"\0" + data)[:_NONCE_BYTES]
        sealed = AESGCM(_subkey(key, "data")).encrypt(nonce, data, user_id.encode())
        return f"{self._first}.{_encode(nonce + sealed)}"

    def decrypt(self, text: str, user_id: str) -> str:
        """Give the text. Raises CannotDecrypt."""
        key_id, _, sealed = text.partition(".")
        key = self._keys.get(key_id)
        if key is None:
            raise CannotDecrypt("no key of ENCRYPTION_KEY has encrypted it")
        try:
            data = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
            aead = AESGCM(_subkey(key, "data"))
            return aead.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], user_id.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise CannotDecrypt("it is altered, or another user's") from error


def _key_id(key: bytes) -> str:
    """Give 64 bits of a hash, which reveal nothing of 256."""
    return _encode(hashlib.sha256(b"ai-coder-auth encryption\0" + key).digest()[:8])


def _subkey(key: bytes, purpose: str, data: bytes = b"") -> bytes:
    return hmac.digest(key, b"ai-coder-auth " + purpose.encode() + b"\0" + data, "sha256")


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
