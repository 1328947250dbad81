"""The keys of session tokens, each for one algorithm, and their PEM parser.

`cryptography` and PyJWT are imported only if there is a PEM to parse.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from shared.credentials.compact_jwt import encode as base64url

_BLOCK = r"(?s)-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_MAKE_ONE = "make one with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"


class InvalidSessionKeys(Exception):
    """The text is not a usable list of keys. The message quotes none of it."""


class SessionKey(NamedTuple):
    """A key for one algorithm (RFC 8725, section 3.1)."""

    kid: str
    algorithm: str
    verify: Callable[[bytes, bytes], bool]
    """Takes data and signature."""
    sign: Callable[[bytes], bytes] | None
    """None for a key that only verifies."""
    jwk: dict[str, str] | None = None
    """The published public key (RFC 7517); None for a secret."""
    is_canonical: Callable[[bytes], bool] = lambda _: True
    """Whether `sign` could have made a valid signature: ES256 has two for each text."""

    def __repr__(self) -> str:
        """Show nothing of what signs, which holds the secret."""
        return f"SessionKey({self.kid!r}, {self.algorithm!r})"


def parse(text: str) -> tuple[SessionKey, ...]:
    r"""Parse PEM blocks, the first a private key; `\n` as two characters also ends a line.

    Only P-256 (ES256) and Ed25519 (EdDSA) are accepted. Raises InvalidSessionKeys.
    """
    text = text.replace("\\n", "\n")
    blocks = [(match[1], match[0].encode(errors="replace")) for match in re.finditer(_BLOCK, text)]
    if not blocks or re.sub(_BLOCK, "", text).strip():
        raise InvalidSessionKeys(f"it must contain only PEM blocks: {_MAKE_ONE}")
    keys = tuple(_read(number, *block) for number, block in enumerate(blocks, 1))
    if keys[0].sign is None:
        raise InvalidSessionKeys("the first key must be private, to sign")
    if len({key.kid for key in keys}) < len(keys):
        raise InvalidSessionKeys("it lists the same key twice")
    return keys


def _read(number: int, label: str, pem: bytes) -> SessionKey:
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

    if b"ENCRYPTED" in pem:
        raise InvalidSessionKeys(f"block {number} is encrypted: `openssl pkey` decrypts it")
    private: Any = None
    public: Any = None
    try:
        if label in ("PRIVATE KEY", "EC PRIVATE KEY"):
            private = load_pem_private_key(pem, None)
            public = private.public_key()
        elif label == "PUBLIC KEY":
            public = load_pem_public_key(pem)
    except UnsupportedAlgorithm:
        pass  # For example another curve.
    except ValueError as error:
        raise InvalidSessionKeys(f"block {number} is damaged: {_MAKE_ONE}") from error
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        algorithm = "ES256"
    elif isinstance(public, Ed25519PublicKey):
        algorithm = "EdDSA"
    else:
        raise InvalidSessionKeys(f"block {number} is not a P-256 or Ed25519 key: {_MAKE_ONE}")
    scheme: Any = jwt.get_algorithm_by_name(algorithm)
    jwk = scheme.to_jwk(public, as_dict=True)
    kid = _thumbprint(jwk)
    jwk |= {"alg": algorithm, "use": "sig", "kid": kid}
    is_canonical = _CANONICAL[algorithm]

    def sign(data: bytes) -> bytes:
        signature = bytes(scheme.sign(data, private))
        return signature if is_canonical(signature) else _twin(signature)

    def verify(data: bytes, signature: bytes) -> bool:
        return bool(scheme.verify(data, public, signature))

    return SessionKey(kid, algorithm, verify, sign if private else None, jwk, is_canonical)


def _is_low(signature: bytes) -> bool:
    return int.from_bytes(signature[32:]) <= _P256_ORDER // 2


_CANONICAL: dict[str, Callable[[bytes], bool]] = {"ES256": _is_low, "EdDSA": lambda _: True}


def _twin(signature: bytes) -> bytes:
    """Give the other valid signature of the same data, with n - s for s; anybody can compute it."""
    return signature[:32] + (_P256_ORDER - int.from_bytes(signature[32:])).to_bytes(32)


def _thumbprint(jwk: dict[str, str]) -> str:
    """Hash a public key that has only the required members (RFC 7638, section 3)."""
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).digest()
    return base64url(digest)
