"""What session tokens say; `signing` signs and verifies them. The caller gives the time."""

from __future__ import annotations

import functools
import re
import secrets
from typing import Any, NamedTuple

from shared.credentials.signing import (
    ISSUER,
    MAX_LENGTH,
    InvalidToken,
    Signing,
    audience,
    check_claims,
)
from shared.errors import StoreRefused
from shared.formats.strict_json import InvalidJson, check_text
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS, SKEW_SECONDS, Session
from shared.model.users import MAX_STORED_EPOCH, User

TYPE = "ai-coder-session+jwt"
"""The explicit `typ` of RFC 8725, section 3.11, which no other kind of token has."""
AUDIENCE = "ai-coder"
MAX_ISSUED_LENGTH = MAX_LENGTH - 160
"""Leaves room for the cookie's name and attributes. Every user in Postgres fits."""
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


class IssuedToken(NamedTuple):
    """A signed token, and the seconds until its session ends."""

    text: str
    max_age: int


class SessionTokens:
    """Issues and reads session tokens. Thread-safe."""

    def __init__(self, signing: Signing, application: str = "") -> None:
        """`signing` has the keys; the tokens are those of one of several applications."""
        self._signing = signing
        self._audience = audience(AUDIENCE, application)
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
            "aud": self._audience,
            "sub": user.id,
            "sid": renews.sid if renews else sid or secrets.token_urlsafe(16),
            "epoch": user.epoch,
            "iat": issued_at,
            "exp": min(issued_at + FRESH_SECONDS, ends_at),
            "session_exp": ends_at,
            "auth_time": renews.auth_time if renews else min(proven_at, issued_at),
            "auth_method": renews.auth_method if renews else method,
            "jti": secrets.token_urlsafe(16),
            "email": user.email,
            "name": user.name and re.sub(_NO_TEXT, "\ufffd", user.name[:NAME_MAX_LENGTH]),
            "provider": user.provider,
        }
        if user.is_degraded:
            claims["degraded"] = True
        if user.email_verified is not None:
            claims["email_verified"] = user.email_verified
        text = self._signing.sign(TYPE, claims)
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
        """Verify a token, whether or not its session has ended. Raises InvalidToken."""
        return self._verified(token)

    def _verify(self, token: str) -> Session:
        claims = self._signing.verify(TYPE, token)
        _check(claims, self._audience)
        return Session(
            user=User(
                id=claims["sub"],
                email=claims["email"],
                name=claims["name"],
                provider=claims["provider"],
                epoch=claims["epoch"],
                is_degraded="degraded" in claims,
                email_verified=claims.get("email_verified"),
            ),
            sid=claims["sid"],
            expires_at=claims["exp"],
            ends_at=claims["session_exp"],
            issued_at=claims["iat"],
            auth_time=claims["auth_time"],
            auth_method=claims["auth_method"],
        )


def _check(claims: dict[str, Any], audience: str) -> None:
    """Raise InvalidToken if the signed claims are not a session's."""
    check_claims(claims, audience, _CLAIMS, may_have_any_text=("name",))
    if not _SID.fullmatch(claims["sid"]) or not 0 <= claims["epoch"] <= MAX_STORED_EPOCH:
        raise InvalidToken("claim sid or epoch is out of range")
    if claims.get("degraded", True) is not True:
        raise InvalidToken("claim degraded is not true")
    if type(claims.get("email_verified", True)) is not bool:
        raise InvalidToken("claim email_verified is neither true nor false")
    issued_at, latest = claims["iat"], claims["iat"] + SESSION_SECONDS
    times = [0, claims["auth_time"], issued_at, claims["exp"], claims["session_exp"], latest]
    if times != sorted(times):
        raise InvalidToken("the times contradict each other")


def _unfit() -> StoreRefused:
    return StoreRefused(
        cause="no session can hold the id, the address, the provider or the epoch of a user"
    )
