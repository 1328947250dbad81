"""Takes a compact JWT apart (RFC 7515, section 3.1): one spelling of base64url, one of JSON.

What PyJWT and google-auth would let pass is refused here: padding, duplicate members, a header or
claims that are no object.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from shared.formats.strict_json import InvalidJson, loads


class InvalidJwt(ValueError):
    """The text is no compact JWT. The message quotes none of it."""


def split(token: str, max_length: int) -> tuple[str, str, str]:
    """Give the segments of header, claims and signature, still encoded. Raises InvalidJwt."""
    if len(token) > max_length:
        raise InvalidJwt("the token is too long")
    if token.count(".") != 2:
        raise InvalidJwt("not a compact JWT")
    header, claims, signature = token.split(".")
    return header, claims, signature


def json_object(segment: str) -> dict[str, Any]:
    """Decode a segment and parse its JSON object. Raises InvalidJwt."""
    try:
        value = loads(decode(segment))
    except InvalidJson as error:
        raise InvalidJwt(f"not a JWT: {error}") from error
    if not isinstance(value, dict):
        raise InvalidJwt("not a JWT: not a JSON object")
    return value


def decode(segment: str) -> bytes:
    """Decode base64url; refuse every spelling but the one that `encode` gives: InvalidJwt."""
    try:
        data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError as error:
        raise InvalidJwt("not a JWT: not base64url") from error
    if encode(data) != segment:
        raise InvalidJwt("not a JWT: not canonical base64url")
    return data


def encode(data: bytes) -> str:
    """Encode as base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
