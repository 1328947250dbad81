"""Keys as `SESSION_PRIVATE_KEY` holds them, made by the tests."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey


def make_p256() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def make_ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def private_pem(key: PrivateKeyTypes, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def public_pem(key: PrivateKeyTypes) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
