"""Verifies ID tokens of Google and Firebase. They authenticate a user and authorize nothing.

google-auth verifies the signature, the audience, `iat` and `exp`. This module checks the strict
form of the token, the algorithm, `iss`, `nbf`, `sub`, `email_verified` and Firebase's claims. The
first token imports google-auth, because the import takes longer than a whole login.
"""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared.credentials import compact_jwt
from shared.credentials.certificates import Certificates
from shared.errors import GoogleNotConfigured, InvalidIdentityToken, InvalidInput
from shared.formats.strict_json import InvalidJson, check_text
from shared.model.emails import parse_new_email
from shared.model.users import (
    FIREBASE_ISSUER,
    GOOGLE_ISSUER,
    TOKEN_MAX_SECONDS,
    ExternalIdentity,
    IdToken,
)

ALGORITHM = "RS256"
SKEW_SECONDS = 10
MAX_LENGTH = 8192
"""Characters of a token; Google's have about 1,200."""
SUBJECT_MAX_LENGTH = 255
"""Characters (OpenID Connect Core, section 2)."""
FIREBASE_SUBJECT_MAX_LENGTH = 128
NAME_MAX_LENGTH = 100
"""A longer name is cut to as many characters as a sign-up allows."""

_GMAIL = ("gmail.com", "googlemail.com")
_FOREIGN_KEYS = {"crit", "b64", "jwk", "jku", "x5u", "x5c"}


@dataclass(frozen=True, slots=True)
class Provider:
    """An issuer of ID tokens."""

    issuers: tuple[str, ...]
    """All accepted values of `iss`; identities are stored under the first."""
    certificates_url: str
    """Gives a JSON object of PEM certificates by `kid`."""


GOOGLE = Provider(
    (GOOGLE_ISSUER, "accounts.google.com"),
    "https://www.googleapis.com/oauth2/v1/certs",
)
FIREBASE_CERTIFICATES_URL = (
    "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"
)


def firebase(project_id: str) -> Provider:
    """Give the issuer of a Firebase project's ID tokens."""
    return Provider((f"{FIREBASE_ISSUER}{project_id}",), FIREBASE_CERTIFICATES_URL)


@dataclass(frozen=True, slots=True)
class Identity:
    """A person whom a provider has authenticated, named by `issuer` and `subject`."""

    issuer: str
    subject: str
    email: str
    """From a sign-in, the email key; otherwise unchanged from the token."""
    provider: str = "google"
    name: str | None = None
    is_authoritative: bool = False
    """Whether Google assigns the address, so that nobody else can have it."""
    also: tuple[ExternalIdentity, ...] = ()
    """The same person's identity at the provider behind this one."""
    auth_time: int = 0
    """When they authenticated at the provider; without that claim, the token's `iat`.

    An old Google token, or a Firebase session of months, is no fresh proof.
    """
    token: IdToken = field(default=IdToken("", 0), compare=False)
    """The verified token."""

    @property
    def identities(self) -> tuple[ExternalIdentity, ...]:
        """All identities of the person; the provider's own is the first."""
        return ExternalIdentity(self.issuer, self.subject), *self.also


class IdTokens:
    """Verifies one provider's tokens. Thread-safe."""

    def __init__(self, provider: Provider) -> None:
        """Fetch nothing yet."""
        self.issuers = provider.issuers
        self._certificates = Certificates(provider.certificates_url)

    def verify(self, token: str, audience: str, now: float) -> Identity:
        """Give the identity in a token for `audience`. Raises as `claims` does."""
        claims = self.claims(token, (audience,), now)
        return Identity(self.issuers[0], claims["sub"], claims["email"])

    def claims(self, token: str, audiences: Collection[str], now: float) -> dict[str, Any]:
        """Give the claims of a token for one of the audiences (OpenID Connect Core, 3.1.3.7).

        Raises InvalidIdentityToken, or IdentityUnavailable if the certificates cannot be fetched.
        No cause quotes the token.
        """
        header, _ = _parse(token)
        kid = header.get("kid")
        # RFC 8725, section 3.1. Without a kid google-auth would try every certificate.
        if header.get("alg") != ALGORITHM or not isinstance(kid, str):
            raise InvalidIdentityToken(cause="another algorithm, or no kid")
        if header.keys() & _FOREIGN_KEYS:
            raise InvalidIdentityToken(cause="a header that brings its own key or rules")
        certificate = self._certificates.get(kid, time.monotonic())
        if certificate is None:
            raise InvalidIdentityToken(cause="the kid is none of the provider's")
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        try:
            claims = jwt.decode(
                token,
                certs={kid: certificate},
                audience=list(audiences),
                clock_skew_in_seconds=SKEW_SECONDS,
            )
        except GoogleAuthError as error:  # Here its messages only quote verified claims.
            raise InvalidIdentityToken(cause=str(error)) from error
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidIdentityToken(cause=f"not an ID token ({type(error).__name__})") from error
        if claims.get("iss") not in self.issuers:
            raise InvalidIdentityToken(cause="another issuer")
        _check(claims, now)
        return dict(claims)


class SignInTokens:
    """Verifies the ID tokens of sign-ins: Google's, and Firebase's with Google as provider."""

    def __init__(
        self, google: IdTokens, client_ids: Collection[str], firebase_project_id: str | None
    ) -> None:
        """Without client ids or a project, that provider's tokens are refused."""
        self._google, self._client_ids = google, client_ids
        self._project_id = firebase_project_id
        self._firebase = IdTokens(firebase(firebase_project_id)) if firebase_project_id else None

    def verify(self, token: str, now: float) -> Identity:
        """Give the identity in a token; `iss` selects the provider.

        Raises InvalidIdentityToken and IdentityUnavailable, as `IdTokens.claims` does, and
        GoogleNotConfigured without any provider.
        """
        if not self._client_ids and not self._firebase:
            raise GoogleNotConfigured(
                cause="neither GOOGLE_CLIENT_ID nor FIREBASE_PROJECT_ID is set"
            )
        issuer = _parse(token)[1].get("iss")  # Unverified: it only selects the verifier.
        if self._client_ids and issuer in self._google.issuers:
            claims = self._google.claims(token, self._client_ids, now)
            found = self._by_google(claims, now)
        elif self._firebase and self._project_id and issuer in self._firebase.issuers:
            claims = self._firebase.claims(token, [self._project_id], now)
            found = self._by_firebase(claims, now)
        else:
            raise InvalidIdentityToken(cause=self._why_not(issuer))
        seconds = min(claims["exp"] + SKEW_SECONDS, now + TOKEN_MAX_SECONDS) - now
        return replace(found, token=IdToken(_name_of(token), seconds))

    def _why_not(self, issuer: object) -> str:
        if issuer in self._google.issuers:
            return "an ID token of Google, but GOOGLE_CLIENT_ID is not set"
        if isinstance(issuer, str) and issuer.startswith(FIREBASE_ISSUER):
            if self._firebase:
                return "an ID token of another Firebase project than FIREBASE_PROJECT_ID"
            return "an ID token of Firebase, but FIREBASE_PROJECT_ID is not set"
        return "another issuer"

    def _by_google(self, claims: Mapping[str, Any], now: float) -> Identity:
        if not isinstance(claims.get("azp", ""), str):
            raise InvalidIdentityToken(cause="azp is not a string")
        return Identity(
            issuer=self._google.issuers[0],
            subject=claims["sub"],
            email=_new_email(claims),
            provider="google",
            name=_name(claims),
            is_authoritative=_is_assigned_by_google(claims["email"], claims.get("hd")),
            auth_time=_auth_time(claims.get("auth_time", claims["iat"]), now),
        )

    def _by_firebase(self, claims: Mapping[str, Any], now: float) -> Identity:
        match claims.get("firebase"):
            case {"sign_in_provider": "google.com", "identities": {"google.com": [str(subject)]}}:
                _check_subject(subject)
            case {"sign_in_provider": "google.com"}:
                raise InvalidIdentityToken(cause="not exactly one account at Google")
            case _:
                raise InvalidIdentityToken(cause="not signed in through Google")
        _check_subject(claims["sub"], FIREBASE_SUBJECT_MAX_LENGTH)
        return Identity(
            issuer=claims["iss"],
            subject=claims["sub"],
            email=_new_email(claims),
            provider="firebase-google",
            name=_name(claims),
            # A claim `hd` could be set by the project itself.
            is_authoritative=_is_assigned_by_google(claims["email"], None),
            also=(ExternalIdentity(self._google.issuers[0], subject),),
            auth_time=_auth_time(claims.get("auth_time"), now),
        )


def _name_of(token: str) -> str:
    """Identify a token by 128 bits of its signed part: a signature may have several forms."""
    digest = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
    return compact_jwt.encode(digest[:16])


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the header and the claims, neither of them verified."""
    try:
        header, claims, signature = compact_jwt.split(token, MAX_LENGTH)
        compact_jwt.decode(signature)
        return compact_jwt.json_object(header), compact_jwt.json_object(claims)
    except compact_jwt.InvalidJwt as error:
        raise InvalidIdentityToken(cause=str(error)) from error


def _check(claims: Mapping[str, Any], now: float) -> None:
    """Check what google-auth does not, and the times by the caller's clock."""
    issued_at, expires_at = claims["iat"], claims["exp"]
    not_before = claims.get("nbf", issued_at)
    if any(type(moment) is not int for moment in (issued_at, not_before, expires_at)):
        raise InvalidIdentityToken(cause="a time is not a whole number")
    if not max(issued_at, not_before) - SKEW_SECONDS <= now < expires_at + SKEW_SECONDS:
        raise InvalidIdentityToken(cause="expired or not valid yet")
    _check_subject(claims.get("sub"))
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        raise InvalidIdentityToken(cause="no verified address")
    if not _is_storable(email):
        raise InvalidIdentityToken(cause="an address that cannot be stored")


def _check_subject(subject: object, at_most: int = SUBJECT_MAX_LENGTH) -> None:
    if not isinstance(subject, str) or not 0 < len(subject) <= at_most or not _is_storable(subject):
        raise InvalidIdentityToken(cause="no usable subject")


def _is_storable(text: str) -> bool:
    try:
        check_text(text)
    except InvalidJson:
        return False
    return True


def _auth_time(moment: object, now: float) -> int:
    if type(moment) is not int or moment > now + SKEW_SECONDS:
        raise InvalidIdentityToken(cause="auth_time is missing or in the future")
    return min(moment, int(now))


def _new_email(claims: Mapping[str, Any]) -> str:
    try:
        return parse_new_email(claims["email"])
    except InvalidInput as error:
        raise InvalidIdentityToken(cause="an address that is invalid for a new user") from error


def _name(claims: Mapping[str, Any]) -> str | None:
    """Give the display name, or None for an unusable one, which is no reason to refuse a token."""
    name = claims.get("name")
    if not isinstance(name, str) or {"Cc", "Cs"} & set(map(unicodedata.category, name)):
        return None
    return unicodedata.normalize("NFC", name).strip()[:NAME_MAX_LENGTH].strip() or None


def _is_assigned_by_google(email: str, hosted_domain: object) -> bool:
    """Tell whether a verified address is Gmail's, or of a Workspace with the address's domain.

    The rule is Google's ("Verify the Google ID token on your server side"): for any other address
    it only knows that somebody once received mail there.
    """
    domain = email.rpartition("@")[2].lower()
    return email.isascii() and (domain in _GMAIL or domain == hosted_domain)
