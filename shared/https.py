"""Requests to other hosts, each within a deadline, without proxies or redirects."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from urllib.parse import urlsplit

from shared.deadlines import call_within

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What `send` raises."""

_MAX_BYTES = 64 * 1024


def send(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str],
    timeout: float,
) -> tuple[bytes, Message]:
    """Send a request by HTTPS, and give the body and the headers of its answer, a 2xx.

    `timeout` is in seconds, for all of it. Raises one of FAILURES, also for another status, a body
    of more than 64 KB, and a URL of another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("not an https URL")
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context()
    )
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"

    def exchange() -> tuple[bytes, Message]:
        try:
            connection.request(method, target, body, dict(headers))
            with connection.getresponse() as response:
                data = response.read(_MAX_BYTES + 1)
            if response.status // 100 != 2 or len(data) > _MAX_BYTES:
                raise ValueError(f"status {response.status}, {len(data)} bytes")
            return data, response.headers
        finally:
            connection.close()

    try:
        return call_within(timeout, exchange)
    except TimeoutError:  # Ours, or the socket's, which is the same deadline.
        with suppress(OSError, AttributeError):  # Ends the thread, too, unless it just has.
            connection.sock.shutdown(socket.SHUT_RDWR)
        raise TimeoutError(f"no answer within {timeout:g} s") from None
