"""A cache of the certificates that verify ID tokens."""

from __future__ import annotations

import re
import threading
from email.message import Message

from shared import https
from shared.errors import IdentityUnavailable
from shared.formats.strict_json import loads
from shared.observe import log

PAUSE_SECONDS = 180.0
"""Minimum between two fetches for unknown names."""
RETRY_SECONDS = 10.0
"""Minimum between any two fetches."""
STALE_SECONDS = 24 * 60 * 60.0
"""How long certificates are used after their max-age while none can be fetched."""
FETCH_SECONDS = 3.0
"""For a whole fetch, including the DNS lookup."""

_MAX_LIFETIME = 24 * 60 * 60.0
_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})", re.IGNORECASE)
_AGE = re.compile(r"\d{1,9}")


class Certificates:
    """One provider's certificates, cached for their max-age (RFC 9111). Thread-safe."""

    def __init__(self, url: str) -> None:
        """`url` gives a JSON object of PEM certificates by `kid`; nothing is fetched yet."""
        self._url = url
        self._fetching = threading.Lock()
        self._next_fetch = 0.0
        self._failure: str | None = None
        self._kept: tuple[dict[str, str], float] = ({}, 0.0)  # With the end of freshness.

    def get(self, kid: str, now: float) -> str | None:
        """Give the certificate of that name, or None if the provider has none.

        Raises IdentityUnavailable if that is unknown. Names that the cache lacks, which anybody can
        invent, cause at most one fetch per PAUSE_SECONDS. `now` is a reading of `time.monotonic()`,
        so that setting the clock makes nothing fresh or stale.
        """
        certificates, until = self._kept
        is_kept = kid in certificates and now < until + STALE_SECONDS
        if is_kept and now < until:
            return certificates[kid]
        # One thread fetches; others wait for it only if they have no stale certificate.
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
            self._failure = f"the certificates cannot be fetched: {type(error).__name__}: {error}"
            log.write(
                "WARNING", "ID tokens are verified with cached certificates", cause=self._failure
            )
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
