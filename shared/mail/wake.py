"""The service's request to itself that has the outbox delivered.

Where the platform takes the CPU away with an answer, as Cloud Run does that bills by the request,
nothing can be sent after it. So a request to ourselves is written before the answer, and its own
answer is not waited for. It comes in every case, or it would tell whether a mail is sent.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

PATH = "/api/mail/delivery"
SECONDS = 0.25
"""For connecting and writing."""
PAUSE = 1.0
"""Seconds from one request to the next of this process."""
VALID_SECONDS = 60
"""How far the clocks of two instances may be apart."""


class Wake:
    """Writes the request, and tells whether one that comes is ours. Thread-safe."""

    def __init__(self, secrets: tuple[str, ...], url: str, application: str = "") -> None:
        """Of the secrets the first signs, and all verify; `url` is where the service is called."""
        purpose = f"ai-coder-auth mail delivery {application}".strip().encode()
        self._keys = [hmac.digest(secret.encode(), purpose, "sha256") for secret in secrets]
        self._url = urlsplit(url)
        self._last = float("-inf")
        self._sending = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._written: socket.socket | None = None
        """The last one's connection: closed, some front ends would call the request off."""

    def send(self, now: float) -> None:
        """Write the request, unless one was just written. Never raises, and waits SECONDS at most.

        `now` is in seconds since the Unix epoch.
        """
        with self._sending:
            if time.monotonic() < self._last + PAUSE:
                return
            self._last = time.monotonic()
        # In a thread, because nothing bounds how long a name server takes.
        writing = threading.Thread(target=self._try, args=(now,), name="wake", daemon=True)
        writing.start()
        writing.join(SECONDS)

    def close(self) -> None:
        """Let go of the last one's connection."""
        if self._written is not None:
            self._written.close()
            self._written = None

    def authorization(self, now: float) -> str:
        """Give the value of `Authorization` that a request made now has."""
        moment = str(int(now))
        return f"Bearer {moment}.{_signature(self._keys[0], moment).decode()}"

    def is_ours(self, authorization: str | None, now: float) -> bool:
        """Tell whether `authorization` gave this value, a minute ago at most."""
        scheme, _, given = (authorization or "").partition(" ")
        moment, _, signature = given.partition(".")
        if scheme != "Bearer" or not (moment.isascii() and moment.isdigit() and len(moment) < 12):
            return False
        if abs(now - int(moment)) > VALID_SECONDS:
            return False
        return any(
            hmac.compare_digest(_signature(key, moment), signature.encode()) for key in self._keys
        )

    def _try(self, now: float) -> None:
        with suppress(OSError, ValueError):
            self._write(now)

    def _write(self, now: float) -> None:
        host, is_secure = self._url.hostname or "", self._url.scheme == "https"
        request = (
            f"POST {PATH} HTTP/1.1\r\nHost: {self._url.netloc}\r\nContent-Length: 0\r\n"
            f"Authorization: {self.authorization(now)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode()
        end = time.monotonic() + SECONDS
        port = self._url.port or (443 if is_secure else 80)
        connection = socket.create_connection((host, port), SECONDS)
        try:
            if is_secure:
                connection.settimeout(max(0.001, end - time.monotonic()))
                if self._context is None:
                    self._context = ssl.create_default_context()
                connection = self._context.wrap_socket(connection, server_hostname=host)
            connection.settimeout(max(0.001, end - time.monotonic()))
            connection.sendall(request)
        except BaseException:
            connection.close()
            raise
        self.close()
        self._written = connection


def _signature(key: bytes, moment: str) -> bytes:
    return hmac.new(key, moment.encode(), "sha256").hexdigest().encode()
