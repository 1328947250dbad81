"""Keeps the certificates that ID tokens are verified with, and asks rarely for them."""

from __future__ import annotations

import re
import threading
from email.message import Message

from shared import https
from shared.errors import IdentityUnavailable
from shared.formats.strict_json import loads
from shared.observe import log

PAUSE_SECONDS = 180.0
"""Between two fetches for names that the provider doesn't have."""
RETRY_SECONDS = 10.0
"""Between any two fetches at least."""
STALE_SECONDS = 24 * 60 * 60.0
"""For which certificates are used beyond their max-age while no newer ones can be had."""
FETCH_SECONDS = 3.0
"""For a fetch as a whole, looking up the host's name included."""

_MAX_LIFETIME = 24 * 60 * 60.0
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})", re.IGNORECASE)
_AGE = re.compile(r"\d{1,9}")


class Certificates:
    """One provider's, kept for as long as their max-age allows (RFC 9111). Safe between threads."""

    def __init__(self, url: str) -> None:
        """`url` gives a JSON object of PEM certificates by `kid`; it is not asked yet."""
        self._url = url
        self._fetching = threading.Lock()
        self._next_fetch = 0.0
        self._failure: str | None = None
        self._kept: tuple[dict[str, str], float] = ({}, 0.0)  # And until when they are fresh.

    def get(self, kid: str, now: float) -> str | None:
        """Give the certificate of that name, or None where the provider has none.

        Raises IdentityUnavailable where that cannot be known. An unknown name, which anybody can
        invent, makes us ask again, but not more often than every PAUSE_SECONDS. `now` is a reading
        of `time.monotonic()`: to set the clock makes nothing fresh or stale.
        """
        certificates, until = self._kept
        is_kept = kid in certificates and now < until + STALE_SECONDS
        if is_kept and now < until:
            return certificates[kid]
        # Of those who have a stale one a single one asks, and the others do not wait for that.
        if self._fetching.acquire(blocking=not is_kept):
            try:
                if now >= self._next_fetch:
                    self._fetch(now)
            finally:
                self._fetching.release()
        certificates, until = self._kept
        if now >= until + STALE_SECONDS or (self._failure and kid not in certificates):
            raise IdentityUnavailable(cause=self._failure)
        return certificates.get(kid)

    def _fetch(self, now: float) -> None:
        from google.auth.crypt import RSAVerifier

        try:
            data, headers = https.send(
                self._url, headers={"Accept": "application/json"}, timeout=FETCH_SECONDS
            )
            certificates = loads(data)
            if not isinstance(certificates, dict) or not certificates:
                raise ValueError("no object of certificates")
            for certificate in certificates.values():
                RSAVerifier.from_string(certificate)
        except (*https.FAILURES, TypeError) as error:
            self._next_fetch = now + RETRY_SECONDS
            self._failure = f"the certificates cannot be had: {type(error).__name__}: {error}"
            log.write("WARNING", "ID tokens are verified with what is kept", cause=self._failure)
            return
        self._failure = None
        lifetime = min(max(_max_age(headers) - _age(headers), RETRY_SECONDS), _MAX_LIFETIME)
        self._next_fetch = now + min(PAUSE_SECONDS, lifetime)
        self._kept = certificates, now + lifetime


def _max_age(headers: Message) -> int:
    found = _MAX_AGE.search(headers.get("Cache-Control", ""))
    return int(found[1]) if found else 0


def _age(headers: Message) -> int:
    found = _AGE.fullmatch(headers.get("Age", ""))
    return int(found[0]) if found else 0
