"""Pools of connections before a server that lies, and how they fail."""

from __future__ import annotations

import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.errors import StoreUnavailable
from tests.support.certificates import Authority
from tests.support.impostor import Impostor, log_in, message

SETTINGS = DatabaseSettings(timeout=6, connect_timeout=5, statement_timeout=5)
SECONDS = 20
"""No deadline, but far more than any answer takes, and far less than none at all."""
Behave = Callable[[ssl.SSLSocket], None]
BUFFERS = 16 * 1024 * 1024
"""Bytes that the sockets of both sides may hold, at most."""


@contextmanager
def lied_to(authority: Authority, behave: Behave, *, bound: bool = False) -> Iterator[Database]:
    with (
        Impostor(authority, lambda tls, _: behave(tls)) as impostor,
        closing(Database(impostor.url(authority, bound=bound), SETTINGS)) as pool,
    ):
        yield pool


def failure(pool: Database) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        pool.execute("SELECT 1")
    assert time.monotonic() - began < SECONDS
    assert pool.counts().total == 0, "closed"
    return str(raised.value.cause)


def parameter(name: bytes, value: bytes) -> bytes:
    return message(b"S", name + b"\0" + value + b"\0")


def header(code: bytes, length: int) -> bytes:
    return code + struct.pack("!i", length)


class Flood:
    """Sends the same for as long as anybody reads it, and counts the bytes."""

    def __init__(self, data: bytes, *, first: Behave) -> None:
        self.sent = 0
        self._data = data * (64 * 1024 // len(data) + 1)
        self._first = first

    def __call__(self, tls: ssl.SSLSocket) -> None:
        self._first(tls)
        while True:
            tls.sendall(self._data)
            self.sent += len(self._data)


def be_asked(tls: ssl.SSLSocket) -> None:
    log_in(tls)
    tls.recv(4096)
