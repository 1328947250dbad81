"""One that signs tokens with each algorithm, and what whoever has its key could forge."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

import jwt

from shared.credentials.session_keys import parse
from shared.credentials.signing import Signing
from tests.support.session_keys import PrivateKey, make_ed25519, make_p256, private_pem

KEY = "first-key-that-is-long-enough-for-hs256"
OTHER = "other-key-that-is-long-enough-for-hs256"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""


class Signer(NamedTuple):
    """One algorithm's."""

    signing: Signing
    algorithm: str
    key: Any
    """What signs."""
    public: Any
    """What any service uses to verify."""

    def forge(
        self,
        token: str,
        claims: dict[str, Any] | None = None,
        headers: dict[str, Any] | None = None,
        *,
        without: tuple[str, ...] = (),
    ) -> str:
        """Sign a token with anything else in it, as an attacker who has the key might."""
        all_headers = jwt.get_unverified_header(token) | (headers or {})
        all_claims = claims_of(token) | (claims or {})
        for name in without:
            all_claims.pop(name, None)
            all_headers.pop(name, None)
        return sign(f"{encode(all_headers)}.{encode(all_claims)}", self.algorithm, self.key)


def _asymmetric(private: PrivateKey) -> Signer:
    (key,) = parse(private_pem(private))
    return Signer(Signing([KEY], [key]), key.algorithm, private, private.public_key())


SIGNERS = {
    "HS256": Signer(Signing([KEY]), "HS256", KEY.encode(), KEY),
    "ES256": _asymmetric(make_p256()),
    "EdDSA": _asymmetric(make_ed25519()),
}


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def encode(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(signed: str, algorithm: str, key: Any) -> str:
    """Add the signature that is ours to the two segments; of ES256's two, the lower."""
    if algorithm == "none":
        return f"{signed}."
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    if algorithm == "ES256" and not is_low(signature):
        signature = twin(signature)
    return f"{signed}.{encode(signature)}"


def twin(signature: bytes) -> bytes:
    """Give the other ES256 signature of the same text, which anybody can make."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)


def is_low(signature: bytes) -> bool:
    return int.from_bytes(signature[32:]) <= ORDER // 2


def raw_signature(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
