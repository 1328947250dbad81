"""Requests to other hosts, each within a deadline, without redirects.

They pass the proxy of HTTPS_PROXY, except to the hosts of NO_PROXY. It forwards bytes: TLS ends at
the host, and is verified, so a proxy need not be trusted.
"""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.message import Message
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from shared.deadlines import call_within

FAILURES = (OSError, http.client.HTTPException, ValueError)
"""What `send` raises."""

_MAX_BYTES = 64 * 1024

T = TypeVar("T")


class UnexpectedAnswer(ValueError):
    """The answer is not a 2xx of a bounded size."""

    def __init__(self, status: int, size: int) -> None:
        """`size` is that of the body, as far as it was read."""
        self.status = status
        super().__init__(f"status {status}, {size} bytes")


class InvalidProxy(ValueError):
    """HTTPS_PROXY is not usable; the text does not quote it, because it may have a password."""


class Proxy(NamedTuple):
    """A proxy that is asked to CONNECT (RFC 9110, section 9.3.6)."""

    host: str
    port: int
    headers: dict[str, str]
    """With the credentials of its URL."""

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """Read the value of HTTPS_PROXY. Raises InvalidProxy."""
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if not host or parts.scheme != "http":
            raise InvalidProxy("it is not a proxy's URL, such as http://proxy.example.com:3128")
        headers = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return cls(host, port, headers)


def send(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str],
    timeout: float,
) -> tuple[bytes, Message]:
    """Send a request by HTTPS, and give the body and the headers of its answer, a 2xx.

    `timeout` is in seconds, for all of it. Raises one of FAILURES; UnexpectedAnswer for another
    status and for a body of more than 64 KB.
    """
    target = urlsplit(url)._replace(scheme="", netloc="", fragment="").geturl() or "/"

    def exchange(connection: http.client.HTTPSConnection) -> tuple[bytes, Message]:
        connection.request(method, target, body, dict(headers))
        with connection.getresponse() as response:
            data = response.read(_MAX_BYTES + 1)
        if response.status // 100 != 2 or len(data) > _MAX_BYTES:
            raise UnexpectedAnswer(response.status, len(data))
        return data, response.headers

    return _connected(url, exchange, timeout)


def reach(url: str, *, timeout: float) -> None:
    """Connect to the host of a URL, as far as verified TLS, and send nothing.

    Raises one of FAILURES.
    """
    _connected(url, http.client.HTTPSConnection.connect, timeout)


def _connected(url: str, use: Callable[[http.client.HTTPSConnection], T], timeout: float) -> T:
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        raise ValueError("not an https URL")
    connection = _connection(parts.hostname, parts.port or 443, timeout)

    def use_and_close() -> T:
        try:
            return use(connection)
        finally:
            connection.close()

    try:
        return call_within(timeout, use_and_close)
    except TimeoutError:  # Ours, or the socket's, which is the same deadline.
        with suppress(OSError, AttributeError):  # Ends the thread, too, unless it just has.
            connection.sock.shutdown(socket.SHUT_RDWR)
        raise TimeoutError(f"no answer within {timeout:g} s") from None


def _connection(host: str, port: int, timeout: float) -> http.client.HTTPSConnection:
    """Prepare a connection; nothing is sent yet."""
    proxy = _proxy_for(host)
    at = (host, port) if proxy is None else (proxy.host, proxy.port)
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(*at, timeout=timeout, context=context)
    if proxy is not None:
        connection.set_tunnel(host, port, proxy.headers)
    return connection


def _proxy_for(host: str) -> Proxy | None:
    if not {"HTTPS_PROXY", "https_proxy"} & os.environ.keys():
        return None
    from urllib.request import getproxies_environment, proxy_bypass

    text = getproxies_environment().get("https", "").strip()
    return None if not text or proxy_bypass(host) else Proxy.parse(text)
