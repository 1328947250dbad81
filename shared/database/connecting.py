"""From an address to a connection that is logged in: name, TCP, verified TLS, within a deadline.

No socket or ssl error leaves this module. What leaves is a `StoreUnavailable` whose cause is for
the log, or `ConnectRetryable`, which `shared.database.pool` answers with another attempt.
"""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from shared.database import system_roots
from shared.database.connection import Connection, PostgresSocket
from shared.database.deadline_socket import DeadlineSocket
from shared.database.faults import GARBLED, ConnectRetryable, describe
from shared.database.url import DatabaseUrl
from shared.deadlines import call_within, remaining
from shared.errors import StoreRefused, StoreUnavailable, StoreUnreachable
from shared.happy_eyeballs import Address, Preferences
from shared.observe import metrics

S = TypeVar("S")

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_ALPN = "postgresql"


def make_tls_context(
    root_certificates: str | None,
    protocol: str = _ALPN,
    kind: type[DeadlineSocket] = PostgresSocket,
) -> ssl.SSLContext:
    """Trust the roots of a file or the system's, and check certificate and host name, always."""
    try:
        context = ssl.create_default_context(
            cafile=root_certificates,
            capath=None if root_certificates else system_roots.folder(),
        )
    except (ssl.SSLError, OSError) as error:
        raise StoreRefused(cause=f"sslrootcert cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    # PostgreSQL up to 17 takes no other curve by default and answers the first guess of OpenSSL
    # with a retry, a round trip more. Every TLS 1.3 server has this one (RFC 8446, section 9.1).
    context.set_ecdh_curve("prime256v1")
    context.sslsocket_class = kind
    return context


def connect(
    url: DatabaseUrl, context: ssl.SSLContext, deadline: float, preferences: Preferences
) -> Connection:
    """Connect and log in before the deadline, to the address of the host that does it first.

    Raises StoreRefused for what waiting cannot mend, StoreUnreachable past the deadline, and
    ConnectRetryable for the rest.
    """

    def ask_for_tls(plain: socket.socket) -> None:
        if url.direct_tls:
            return
        plain.settimeout(remaining(deadline))
        plain.sendall(_SSL_REQUEST)
        answer = plain.recv(1)
        if answer == b"":
            raise ConnectRetryable("the server hung up before TLS")
        if answer != b"S":
            raise StoreRefused(cause="the server does not speak TLS; nothing was sent to it")

    def log_in(tls: DeadlineSocket) -> Connection:
        if url.direct_tls and tls.selected_alpn_protocol() != _ALPN:
            raise StoreRefused(cause="the server does not speak PostgreSQL over direct TLS")
        assert isinstance(tls, PostgresSocket)
        return Connection(url, tls)

    return dial(url.host, url.port, context, deadline, preferences, log_in, ask_for_tls)


def dial(
    host: str,
    port: int,
    context: ssl.SSLContext,
    deadline: float,
    preferences: Preferences,
    begin: Callable[[DeadlineSocket], S],
    ask_for_tls: Callable[[socket.socket], None] = lambda _: None,
) -> S:
    """Connect to a host over TLS before the deadline, and begin a session there.

    Raises as `connect` does.
    """
    began, outcome = time.monotonic(), "failed"
    plain = None
    try:
        addresses = _resolve(host, port, deadline)
        plain, address = preferences.connect(host, addresses, deadline)
        ask_for_tls(plain)
        plain.settimeout(remaining(deadline))
        tls = context.wrap_socket(plain, server_hostname=host)
        assert isinstance(tls, DeadlineSocket)
        plain = tls
        tls.deadline = deadline
        session = begin(tls)
        outcome = "ok"
        return session
    except BaseException as error:  # noqa: BLE001  # always raised again, translated
        if plain is not None:
            plain.close()
            preferences.put_last(host, address)
        _raise_from_dialing(error)
    finally:
        metrics.CONNECTS.record(time.monotonic() - began, outcome)


def _resolve(host: str, port: int, deadline: float) -> list[Address]:
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        return call_within(remaining(deadline), look_up)
    except UnicodeError as error:
        raise StoreRefused(cause="the host's name is not a valid one") from error


def _raise_from_dialing(error: BaseException) -> NoReturn:
    if isinstance(error, StoreUnavailable | ConnectRetryable):
        raise error
    if isinstance(error, ssl.SSLCertVerificationError):
        raise StoreRefused(
            cause=f"the server's certificate is not valid for this host: {error.verify_message}"
        ) from error
    if isinstance(error, ssl.SSLError) and not isinstance(
        error, ssl.SSLEOFError | ssl.SSLZeroReturnError
    ):
        raise StoreRefused(cause=f"TLS failed: {error.reason or error}") from error
    if isinstance(error, TimeoutError):
        raise StoreUnreachable(cause="connecting took longer than its deadline") from error
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        raise StoreRefused(cause=f"the host's name cannot be resolved: {error.strerror}") from error
    if isinstance(error, GARBLED):
        raise StoreRefused(cause="the server does not speak PostgreSQL's protocol") from error
    if isinstance(error, OSError):
        raise ConnectRetryable(describe(error)) from error
    raise error
