"""Issues and verifies session tokens: signed JWTs that follow RFC 8725.

PyJWT only signs and verifies, and only with key pairs; a secret uses the standard library's HMAC.
Everything else is checked here, because PyJWT accepts any `typ` and a missing `exp`, and because
every request with a session comes through here. Any other token raises InvalidToken. The caller
gives the time.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.credentials import compact_jwt
from shared.credentials.session_keys import SessionKey
from shared.errors import StoreRefused
from shared.formats.strict_json import InvalidJson, check_text
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, SKEW_SECONDS, Session
from shared.model.users import MAX_STORED_EPOCH, User

TYPE = "ai-coder-session+jwt"
"""The explicit `typ` of RFC 8725, section 3.11, which no other kind of token has."""
ISSUER = "ai-coder-auth"
AUDIENCE = "ai-coder"
MAX_LENGTH = 4096
"""Bytes of a token, because browsers drop larger cookies."""
MAX_ISSUED_LENGTH = MAX_LENGTH - 160
"""Leaves room for the cookie's name and attributes. Every user in Postgres fits."""
VERSION = 2
"""Of issued tokens. Tokens without a version, of earlier code, may have either of ES256's two
signatures; since this version only the lower is valid."""
VERIFIED_TOKENS = 512
"""How many of the latest tokens are not verified anew: no time decides, and keys do not change."""
NAME_MAX_LENGTH = 100
"""Characters of the name in the token; names of the old system can be longer."""

_CLAIMS: dict[str, tuple[type, ...]] = {
    "sub": (str,),
    "sid": (str,),
    "jti": (str,),
    "epoch": (int,),
    "iat": (int,),
    "exp": (int,),
    "session_exp": (int,),
    "auth_time": (int,),
    "auth_method": (str,),
    "email": (str,),
    "name": (str, type(None)),
    "provider": (str,),
}
_SID = re.compile(r"[!-~]{1,255}")
_NO_TEXT = "[\0\ud800-\udfff]"
"""Characters that a name in a users file may contain, but no claim."""


class InvalidToken(Exception):
    """The token is not ours, is altered, or its session has ended."""


class IssuedToken(NamedTuple):
    """A signed token, and the seconds until its session ends."""

    text: str
    max_age: int


class SessionTokens:
    """Signs with the first private key, or else the first secret; verifies with all."""

    def __init__(self, session_secrets: Sequence[str], keys: Sequence[SessionKey] = ()) -> None:
        """Take both in the order of `SESSION_SECRET` and `SESSION_PRIVATE_KEY`."""
        usable = [*keys, *map(_secret_key, session_secrets)]
        self._keys = {key.kid: key for key in usable}
        self._signing_key = usable[0]
        # One request may ask twice, and a browser sends the same token for ten minutes.
        self._verified = functools.lru_cache(VERIFIED_TOKENS)(self._verify)

    def issue(
        self,
        user: User,
        now: float,
        *,
        method: str = "password",
        auth_time: int | None = None,
        sid: str | None = None,
        renews: Session | None = None,
    ) -> IssuedToken:
        """Make a token for a new session, or a fresh one for the session it renews.

        `auth_time` is when the user authenticated by `method`; default: now. The default `sid` is
        random. A degraded user's session ends when it is no longer fresh.
        Raises StoreRefused for a user who fits no token. Only a users file can have one, with
        invalid texts, or texts far longer than the database's columns.
        """
        try:
            check_text([user.id, user.email, user.provider])
        except InvalidJson as error:
            raise _unfit() from error
        if not 0 <= user.epoch <= MAX_STORED_EPOCH:
            raise _unfit()
        issued_at = int(now)
        lasts = FRESH_SECONDS if user.is_degraded else SESSION_SECONDS
        ends_at = renews.ends_at if renews else issued_at + lasts
        proven_at = issued_at if auth_time is None else auth_time
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user.id,
            "sid": renews.sid if renews else sid or secrets.token_urlsafe(16),
            "epoch": user.epoch,
            "iat": issued_at,
            "exp": min(issued_at + FRESH_SECONDS, ends_at),
            "session_exp": ends_at,
            "auth_time": renews.auth_time if renews else min(proven_at, issued_at),
            "auth_method": renews.auth_method if renews else method,
            "jti": secrets.token_urlsafe(16),
            "ver": VERSION,
            "email": user.email,
            "name": user.name and re.sub(_NO_TEXT, "\ufffd", user.name[:NAME_MAX_LENGTH]),
            "provider": user.provider,
        }
        if user.is_degraded:
            claims["degraded"] = True
        key, sign = self._signing_key, self._signing_key.sign
        if sign is None:
            raise ValueError("the first key has to sign")
        signed = f"{_encode(_header(key))}.{_encode(claims)}"
        text = f"{signed}.{compact_jwt.encode(sign(signed.encode()))}"
        if len(text) > MAX_ISSUED_LENGTH:
            raise _unfit()
        return IssuedToken(text, ends_at - issued_at)

    def read(self, token: str, now: float) -> Session:
        """Verify a token and that its session has not ended. Raises InvalidToken."""
        session = self.verify(token)
        if session.issued_at > now + SKEW_SECONDS or now >= session.ends_at:
            raise InvalidToken("the session has ended or has not begun")
        return session

    def verify(self, token: str) -> Session:
        """Verify a token, whether or not its session has ended. Raises InvalidToken.

        The header must be exactly one of ours, so that the sender never chooses `alg`, `jwk`,
        `jku`, `x5u`, `crit` or `b64`.
        """
        return self._verified(token)

    def _verify(self, token: str) -> Session:
        claims = self._verified_claims(token)
        _check(claims)
        return Session(
            user=User(
                id=claims["sub"],
                email=claims["email"],
                name=claims["name"],
                provider=claims["provider"],
                epoch=claims["epoch"],
                is_degraded="degraded" in claims,
            ),
            sid=claims["sid"],
            expires_at=claims["exp"],
            ends_at=claims["session_exp"],
            issued_at=claims["iat"],
            auth_time=claims["auth_time"],
            auth_method=claims["auth_method"],
        )

    def _verified_claims(self, token: str) -> dict[str, Any]:
        try:
            header_segment, claims_segment, signature_segment = compact_jwt.split(token, MAX_LENGTH)
            header = compact_jwt.json_object(header_segment)
            key = self._keys.get(str(header.get("kid")))
            if key is None or header != _header(key):
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


def _check(claims: dict[str, Any]) -> None:
    """Raise InvalidToken if the signed claims are not a session's."""
    if claims.get("iss") != ISSUER or claims.get("aud") != AUDIENCE:
        raise InvalidToken("not from us or not for us")
    for name, kinds in _CLAIMS.items():
        if type(claims.get(name)) not in kinds:  # Exactly: a bool is an int to isinstance.
            raise InvalidToken(f"claim {name} is missing or of the wrong type")
    try:
        check_text([text for name, text in claims.items() if name != "name"])
    except InvalidJson as error:
        raise InvalidToken("a claim has an invalid text") from error
    if not _SID.fullmatch(claims["sid"]) or not 0 <= claims["epoch"] <= MAX_STORED_EPOCH:
        raise InvalidToken("claim sid or epoch is out of range")
    if claims.get("degraded", True) is not True:
        raise InvalidToken("claim degraded is not true")
    issued_at, latest = claims["iat"], claims["iat"] + SESSION_SECONDS
    times = [0, claims["auth_time"], issued_at, claims["exp"], claims["session_exp"], latest]
    if times != sorted(times):
        raise InvalidToken("the times contradict each other")


def _header(key: SessionKey) -> dict[str, str]:
    return {"alg": key.algorithm, "typ": TYPE, "kid": key.kid}


def _unfit() -> StoreRefused:
    return StoreRefused(
        cause="no session can hold the id, the address, the provider or the epoch of a user"
    )


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
