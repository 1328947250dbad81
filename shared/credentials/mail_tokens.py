"""The tokens in links that are mailed: each for one purpose, one user, and one state of the user.

No table keeps them. What a token proves is that somebody reads the mailbox; it ends by what it
changes, and by every other change of the password, the address or the sessions: `epoch` and
`email_digest`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from shared.credentials.signing import ISSUER, InvalidToken, Signing, audience, check_claims
from shared.errors import InvalidMailToken
from shared.model.mails import LIFETIMES, Kind, Mail
from shared.model.sessions import SKEW_SECONDS
from shared.model.users import MAX_STORED_EPOCH, UUID

TYPE = "ai-coder-mail+jwt"
"""The explicit `typ` (RFC 8725, section 3.11): no session's token has it."""
AUDIENCE = "ai-coder-mail"
"""Another than a session's, for verifiers that look at no `typ`."""

_CLAIMS: dict[str, tuple[type, ...]] = {
    "purpose": (str,),
    "sub": (str,),
    "epoch": (int,),
    "email_digest": (str,),
    "email": (str,),
    "jti": (str,),
    "iat": (int,),
    "exp": (int,),
}
_DIGEST = re.compile(r"[0-9a-f]{32}")


class MailToken(NamedTuple):
    """What a verified token says."""

    id: str
    """Of the mail."""
    purpose: Kind
    user_id: str
    epoch: int
    email_digest: str
    """The digest of the user's address as the request saw it."""
    email: str
    """Whose mailbox it was sent to, as an email key."""
    ends_at: int
    """In seconds since the Unix epoch."""


class MailTokens:
    """Makes the tokens of mails and reads them. Thread-safe."""

    def __init__(self, signing: Signing, application: str = "") -> None:
        """`signing` has the keys; the tokens are those of one of several applications."""
        self._signing = signing
        self._audience = audience(AUDIENCE, application)

    def issue(self, mail: Mail, now: float) -> str:
        """Make the token of a mail whose kind has a link; it works from now on."""
        return self._signing.sign(
            TYPE,
            {
                "iss": ISSUER,
                "aud": self._audience,
                "purpose": mail.kind,
                "sub": mail.user_id,
                "epoch": mail.epoch,
                "email_digest": mail.email_digest,
                "email": mail.recipient,
                "jti": mail.id,
                "iat": int(now),
                "exp": int(now) + LIFETIMES[mail.kind],
            },
        )

    def read(self, token: str, *purposes: Kind, now: float) -> MailToken:
        """Verify a token for one of the purposes. Raises InvalidMailToken for any other text."""
        try:
            claims = self._signing.verify(TYPE, token)
            _check(claims, self._audience)
        except InvalidToken as error:
            raise InvalidMailToken(cause=str(error)) from error
        if claims["purpose"] not in purposes:
            raise InvalidMailToken(cause="the token is for another purpose")
        if now >= claims["exp"] or claims["iat"] > now + SKEW_SECONDS:
            raise InvalidMailToken(cause="the token has ended or has not begun")
        return MailToken(
            id=claims["jti"],
            purpose=claims["purpose"],
            user_id=claims["sub"],
            epoch=claims["epoch"],
            email_digest=claims["email_digest"],
            email=claims["email"],
            ends_at=claims["exp"],
        )


def _check(claims: dict[str, Any], audience: str) -> None:
    """Raise InvalidToken if the signed claims are not a mail's."""
    check_claims(claims, audience, _CLAIMS)
    if not (UUID.fullmatch(claims["sub"]) and UUID.fullmatch(claims["jti"])):
        raise InvalidToken("claim sub or jti is no UUID")
    if not claims["email"]:
        raise InvalidToken("claim email is empty")
    is_epoch = 0 <= claims["epoch"] <= MAX_STORED_EPOCH
    if not (is_epoch and _DIGEST.fullmatch(claims["email_digest"])):
        raise InvalidToken("claim email_digest or epoch is out of range")
