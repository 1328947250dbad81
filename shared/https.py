"""Asks other hosts: one request within a deadline, by no proxy, following no redirect."""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from urllib.parse import urlsplit

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
    of more than 64 KB, and a URL of another scheme. It happens in a thread, because neither the
    system's resolver nor http.client knows a deadline for the whole.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("not an https URL")
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context()
    )
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    outcome: queue.SimpleQueue[tuple[bytes, Message] | Exception] = queue.SimpleQueue()

    def exchange() -> None:
        try:
            connection.request(method, target, body, dict(headers))
            with connection.getresponse() as response:
                data = response.read(_MAX_BYTES + 1)
            if response.status // 100 != 2 or len(data) > _MAX_BYTES:
                raise ValueError(f"status {response.status}, {len(data)} bytes")
            outcome.put((data, response.headers))
        except Exception as error:  # noqa: BLE001  # handed over to the one who waits
            outcome.put(error)
        finally:
            connection.close()

    threading.Thread(target=exchange, daemon=True).start()
    try:
        result = outcome.get(timeout=timeout)
    except queue.Empty:
        with suppress(OSError, AttributeError):  # Ends the thread, too, unless it just has.
            connection.sock.shutdown(socket.SHUT_RDWR)
        result = TimeoutError()
    if isinstance(result, TimeoutError):  # The socket's own is the same deadline, seen by it first.
        raise TimeoutError(f"no answer within {timeout:g} s")
    if isinstance(result, Exception):
        raise result
    return result
