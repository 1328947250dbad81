"""Signs and verifies compact JWTs by RFC 8725, for the modules that know what is in them.

PyJWT only signs and verifies, and only with key pairs; a secret uses the standard library's HMAC.
Everything else is checked here, because PyJWT accepts any `typ`, and because every request with a
session comes through here. Any token that is not ours raises InvalidToken.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from shared.credentials import compact_jwt
from shared.credentials.session_keys import SessionKey
from shared.formats.strict_json import InvalidJson, check_text

MAX_LENGTH = 4096
"""Bytes of a token, because browsers drop larger cookies."""
VERSION = 2
"""Of issued tokens. Tokens without a version, of earlier code, may have either of ES256's two
signatures; since this version only the lower is valid."""


ISSUER = "ai-coder-auth"


class InvalidToken(Exception):
    """The token is not ours, is altered, or has ended. The message quotes none of it."""


class Signing:
    """Signs with the first private key, or else the first secret; verifies with all."""

    def __init__(self, secrets: Sequence[str], keys: Sequence[SessionKey] = ()) -> None:
        """Take both in the order of `SESSION_SECRET` and `SESSION_PRIVATE_KEY`."""
        usable = [*keys, *map(_secret_key, secrets)]
        self._keys = {key.kid: key for key in usable}
        self._signing_key = usable[0]

    def sign(self, typ: str, claims: dict[str, Any]) -> str:
        """Make a token of this explicit `typ` (RFC 8725, section 3.11); its version is added."""
        key, sign = self._signing_key, self._signing_key.sign
        if sign is None:
            raise ValueError("the first key has to sign")
        signed = f"{_encode(_header(key, typ))}.{_encode(claims | {'ver': VERSION})}"
        return f"{signed}.{compact_jwt.encode(sign(signed.encode()))}"

    def verify(self, typ: str, token: str) -> dict[str, Any]:
        """Give the claims of a token of this `typ`, which are still unchecked. Raises InvalidToken.

        The header must be exactly one of ours, so that the sender never chooses `alg`, `jwk`,
        `jku`, `x5u`, `crit` or `b64`.
        """
        try:
            header_segment, claims_segment, signature_segment = compact_jwt.split(token, MAX_LENGTH)
            header = compact_jwt.json_object(header_segment)
            key = self._keys.get(str(header.get("kid")))
            if key is None or header != _header(key, typ):
                raise InvalidToken("not a header of ours")
            signature = compact_jwt.decode(signature_segment)
            if not key.verify(f"{header_segment}.{claims_segment}".encode(), signature):
                raise InvalidToken("not our signature")
            claims = compact_jwt.json_object(claims_segment)
        except compact_jwt.InvalidJwt as error:
            raise InvalidToken(str(error)) from error
        if "ver" in claims and not key.is_canonical(signature):
            raise InvalidToken("not our spelling of the signature")
        return claims

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Give the public keys as a JWK Set (RFC 7517, section 5); secrets are never in it."""
        return {"keys": [key.jwk for key in self._keys.values() if key.jwk]}


def audience(kind: str, application: str) -> str:
    """Name whom a kind of tokens is for: one of several applications takes no other's."""
    return f"{kind}/{application}" if application else kind


def check_claims(
    claims: dict[str, Any],
    audience: str,
    kinds: Mapping[str, tuple[type, ...]],
    *,
    may_have_any_text: Collection[str] = (),
) -> None:
    """Raise InvalidToken unless signed claims are from us, for `audience`, and of these types.

    Texts may have no character that no statement could take, but in `may_have_any_text`.
    """
    if claims.get("iss") != ISSUER or claims.get("aud") != audience:
        raise InvalidToken("not from us or not for us")
    for name, allowed in kinds.items():
        if type(claims.get(name)) not in allowed:  # Exactly: a bool is an int to isinstance.
            raise InvalidToken(f"claim {name} is missing or of the wrong type")
    try:
        check_text([text for name, text in claims.items() if name not in may_have_any_text])
    except InvalidJson as error:
        raise InvalidToken("a claim has an invalid text") from error


def _header(key: SessionKey, typ: str) -> dict[str, str]:
    return {"alg": key.algorithm, "typ": typ, "kid": key.kid}


def _encode(value: dict[str, Any]) -> str:
    # As UTF-8: escapes take 6 bytes per character, or 12 outside the basic plane.
    return compact_jwt.encode(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _secret_key(secret: str) -> SessionKey:
    """Make a key of a secret; its `kid` is 64 bits of a hash, which reveal nothing of 256."""
    digest = hashlib.sha256(b"ai-coder-auth kid\0" + secret.encode()).digest()

    def sign(data: bytes) -> bytes:
        return hmac.digest(secret.encode(), data, "sha256")

    def verify(data: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(sign(data), signature)

    return SessionKey(compact_jwt.encode(digest[:8]), "HS256", verify, sign)
