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
from typing import NoReturn

from shared.database import system_roots
from shared.database.connection import Connection, PostgresSocket
from shared.database.faults import GARBLED, ConnectRetryable, describe
from shared.database.url import DatabaseUrl
from shared.deadlines import call_within, remaining
from shared.errors import StoreRefused, StoreUnavailable, StoreUnreachable
from shared.happy_eyeballs import Address, Preferences
from shared.observe import metrics

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_ALPN = "postgresql"


def make_tls_context(url: DatabaseUrl) -> ssl.SSLContext:
    """Trust the given roots or the system's, and check certificate and host name, always."""
    try:
        context = ssl.create_default_context(
            cafile=url.root_certificates,
            capath=None if url.root_certificates else system_roots.folder(),
        )
    except (ssl.SSLError, OSError) as error:
        raise StoreRefused(cause=f"sslrootcert cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([_ALPN])
    # PostgreSQL up to 17 takes no other curve by default and answers the first guess of OpenSSL
    # with a retry, a round trip more. Every TLS 1.3 server has this one (RFC 8446, section 9.1).
    context.set_ecdh_curve("prime256v1")
    context.sslsocket_class = PostgresSocket
    return context


def connect(
    url: DatabaseUrl, context: ssl.SSLContext, deadline: float, preferences: Preferences
) -> Connection:
    """Connect and log in before the deadline, to the address of the host that does it first.

    Raises StoreRefused for what waiting cannot mend, StoreUnreachable past the deadline, and
    ConnectRetryable for the rest.
    """
    began = time.monotonic()
    outcome = "failed"
    try:
        connection = _connect(url, context, deadline, preferences)
        outcome = "ok"
        return connection
    finally:
        metrics.CONNECTS.record(time.monotonic() - began, outcome)


def _connect(
    url: DatabaseUrl, context: ssl.SSLContext, deadline: float, preferences: Preferences
) -> Connection:
    plain = None
    try:
        addresses = _resolve(url.host, url.port, deadline)
        plain, address = preferences.connect(url.host, addresses, deadline)
        if not url.direct_tls:
            plain.settimeout(remaining(deadline))
            plain.sendall(_SSL_REQUEST)
            answer = plain.recv(1)
            if answer == b"":
                raise ConnectRetryable("the server hung up before TLS")
            if answer != b"S":
                raise StoreRefused(cause="the server does not speak TLS; nothing was sent to it")
        plain.settimeout(remaining(deadline))
        tls = context.wrap_socket(plain, server_hostname=url.host)
        assert isinstance(tls, PostgresSocket)
        plain = tls
        if url.direct_tls and tls.selected_alpn_protocol() != _ALPN:
            raise StoreRefused(cause="the server does not speak PostgreSQL over direct TLS")
        tls.deadline = deadline
        return Connection(url, tls)
    except BaseException as error:  # noqa: BLE001  # always raised again, translated
        if plain is not None:
            plain.close()
            preferences.put_last(url.host, address)
        _raise_from_dialing(error)


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
        raise StoreRefused(cause=f"TLS failed: {error.reason}") from error
    if isinstance(error, TimeoutError):
        raise StoreUnreachable(cause="connecting took longer than its deadline") from error
    if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
        raise StoreRefused(cause=f"the host's name cannot be resolved: {error.strerror}") from error
    if isinstance(error, GARBLED):
        raise StoreRefused(cause="the server does not speak PostgreSQL's protocol") from error
    if isinstance(error, OSError):
        raise ConnectRetryable(describe(error)) from error
    raise error
