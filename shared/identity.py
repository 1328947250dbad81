"""Verifies ID tokens: who somebody is in the eyes of Google, never what they may do.

google-auth verifies the signature, the audience and two of the times. Left to its caller, and done
here: keeping the certificates, pinning the algorithm, `iss`, `nbf`, `sub` and `email_verified`. It
is imported when the first token comes, because it takes longer than a whole login.
"""

from __future__ import annotations

import http.client
import queue
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from shared.errors import IdentityUnavailable, InvalidIdentityToken
from shared.strict_json import loads

ALGORITHM = "RS256"
SKEW_SECONDS = 10
MAX_LENGTH = 8192
"""Characters of a token; Google's have about 1,200."""
PAUSE_SECONDS = 10.0
"""Between two fetches at least, whatever the tokens make us look for."""
FETCH_SECONDS = 3.0
"""For a fetch as a whole, looking up the host's name included."""

_MAX_CERTIFICATES = 64 * 1024  # Bytes. Google's are 4 KB.
_MAX_LIFETIME = 24 * 60 * 60.0
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Provider:
    """Who issues ID tokens, under which names, and where the certificates are."""

    issuers: tuple[str, ...]
    """Every `iss` that is accepted; an identity is known by the first."""
    certificates_url: str
    """Gives a JSON object of PEM certificates by `kid`."""


GOOGLE = Provider(
    ("https://accounts.google.com", "accounts.google.com"),
    "https://www.googleapis.com/oauth2/v1/certs",
)
FIREBASE_CERTIFICATES_URL = (
    "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"
)


def firebase(project_id: str) -> Provider:
    """Give the issuer of a Firebase project's ID tokens."""
    return Provider((f"https://securetoken.google.com/{project_id}",), FIREBASE_CERTIFICATES_URL)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a provider vouches for: `issuer` and `subject` name them, the address is theirs."""

    issuer: str
    subject: str
    email: str


class IdTokens:
    """Verifies one provider's tokens. Safe to share between threads."""

    def __init__(self, provider: Provider) -> None:
        """Fetch nothing yet."""
        self._issuers = provider.issuers
        self._certificates = _Certificates(provider.certificates_url)

    def verify(self, token: str, audience: str, now: float) -> Identity:
        """Give the identity in a token made for `audience` (OpenID Connect Core, section 3.1.3.7).

        Raises InvalidIdentityToken, and IdentityUnavailable where the certificates that would
        decide cannot be had. No cause quotes the token.
        """
        if len(token) > MAX_LENGTH:
            raise InvalidIdentityToken(cause="the token is too long")
        from google.auth import jwt
        from google.auth.exceptions import GoogleAuthError

        try:
            header = jwt.decode_header(token)
        except (GoogleAuthError, ValueError, RecursionError) as error:
            raise InvalidIdentityToken(cause=f"no JWT ({type(error).__name__})") from error
        kid = header.get("kid")
        # RFC 8725, section 3.1. Without a kid google-auth would try every certificate.
        if header.get("alg") != ALGORITHM or not isinstance(kid, str):
            raise InvalidIdentityToken(cause="another algorithm, or no kid")
        certificate = self._certificates.get(kid, now)
        if certificate is None:
            raise InvalidIdentityToken(cause="the kid is none of the provider's")
        try:
            claims = jwt.decode(
                token,
                certs={kid: certificate},
                audience=audience,
                clock_skew_in_seconds=SKEW_SECONDS,
            )
        except GoogleAuthError as error:  # Its texts from here on quote verified claims only.
            raise InvalidIdentityToken(cause=str(error)) from error
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidIdentityToken(cause=f"no ID token ({type(error).__name__})") from error
        return self._identity(claims, now)

    def _identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Check what google-auth does not. `exp` and `iat` again, as it takes NaN for a time."""
        if claims.get("iss") not in self._issuers:
            raise InvalidIdentityToken(cause="another issuer")
        issued_at, expires_at = claims["iat"], claims["exp"]
        not_before = claims.get("nbf", issued_at)
        if any(type(moment) is not int for moment in (issued_at, not_before, expires_at)):
            raise InvalidIdentityToken(cause="a time is not a whole number")
        if not max(issued_at, not_before) - SKEW_SECONDS <= now < expires_at + SKEW_SECONDS:
            raise InvalidIdentityToken(cause="expired or not valid yet")
        subject, email = claims.get("sub"), claims.get("email")
        if not isinstance(subject, str) or not subject:
            raise InvalidIdentityToken(cause="no subject")
        if claims.get("email_verified") is not True or not isinstance(email, str):
            raise InvalidIdentityToken(cause="no verified address")
        return Identity(self._issuers[0], subject, email)


class _Certificates:
    """A provider's certificates, kept for as long as their max-age allows (RFC 9111)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._fetching = threading.Lock()
        self._next_fetch = 0.0
        self._failure: str | None = None
        self._kept: tuple[dict[str, str], float] = ({}, 0.0)  # And until when.

    def get(self, kid: str, now: float) -> str | None:
        """Give the certificate of that name, or None where the provider has none.

        Raises IdentityUnavailable where that cannot be known. An unknown name, which anybody can
        invent, makes us ask again, but not more often than every PAUSE_SECONDS.
        """
        certificates, until = self._kept
        if now < until and kid in certificates:
            return certificates[kid]
        with self._fetching:
            if now >= self._next_fetch:
                self._next_fetch = now + PAUSE_SECONDS
                self._fetch(now)
        certificates, until = self._kept
        if now >= until or (self._failure and kid not in certificates):
            raise IdentityUnavailable(cause=self._failure)
        return certificates.get(kid)

    def _fetch(self, now: float) -> None:
        from google.auth.crypt import RSAVerifier

        try:
            data, headers = _download(self._url)
            certificates = loads(data)
            if not isinstance(certificates, dict) or not certificates:
                raise ValueError("no object of certificates")
            for certificate in certificates.values():
                RSAVerifier.from_string(certificate)
        except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
            self._failure = f"the certificates cannot be had: {type(error).__name__}: {error}"
            return
        self._failure = None
        lifetime = _max_age(headers) - _age(headers)
        self._kept = certificates, now + min(max(lifetime, PAUSE_SECONDS), _MAX_LIFETIME)


def _max_age(headers: Message) -> int:
    found = _MAX_AGE.search(headers.get("Cache-Control", ""))
    return int(found[1]) if found else 0


def _age(headers: Message) -> int:
    text = headers.get("Age", "")
    return int(text) if text.isdecimal() else 0


def _download(url: str) -> tuple[bytes, Message]:
    """Get a URL by HTTPS within FETCH_SECONDS, following no redirect and asking no proxy.

    Raises OSError, HTTPException and ValueError. It happens in a thread, because neither the
    system's resolver nor http.client knows a deadline for the whole.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("not an https URL")
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=FETCH_SECONDS, context=ssl.create_default_context()
    )
    outcome: queue.SimpleQueue[tuple[bytes, Message] | Exception] = queue.SimpleQueue()

    def exchange() -> None:
        try:
            connection.request("GET", parts.path, headers={"Accept": "application/json"})
            with connection.getresponse() as response:
                data = response.read(_MAX_CERTIFICATES + 1)
            if response.status != 200 or len(data) > _MAX_CERTIFICATES:
                raise ValueError(f"status {response.status}, {len(data)} bytes")
            outcome.put((data, response.headers))
        except Exception as error:  # noqa: BLE001  # handed over to the one who waits
            outcome.put(error)
        finally:
            connection.close()

    threading.Thread(target=exchange, daemon=True).start()
    try:
        result = outcome.get(timeout=FETCH_SECONDS)
    except queue.Empty:
        with suppress(OSError, AttributeError):  # Ends the thread, too, unless it just has.
            connection.sock.shutdown(socket.SHUT_RDWR)
        raise TimeoutError(f"no answer within {FETCH_SECONDS:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result
