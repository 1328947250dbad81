"""A TCP connection to the first of a host's addresses that answers (RFC 8305)."""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any

from shared.deadlines import remaining

ATTEMPT_DELAY = 0.25
"""Seconds for which an address is tried before the next one is tried beside it (section 5)."""

Address = tuple[Any, ...]
"""An element of what `socket.getaddrinfo` gives."""

_FIRST, _UNKNOWN, _LAST = range(3)


class Preferences:
    """Which address of a host answered last, and which did not. Safe to share between threads."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._ranks: dict[str, dict[Address, int]] = {}

    def connect(
        self, host: str, addresses: Sequence[Address], deadline: float
    ) -> tuple[socket.socket, Address]:
        """Connect to one of the addresses, and prefer it from now on.

        Raises the last OSError where each of them fails, and TimeoutError past the deadline.
        """
        known = self._ranks.get(host, {})
        ordered = sorted(_interleaved(addresses), key=lambda address: known.get(address, _UNKNOWN))
        race = _Race(ordered)
        winner, address = race.run(deadline)
        lost = dict.fromkeys(race.tried, _LAST)
        self._ranks[host] = {a: known.get(a, _UNKNOWN) for a in ordered} | lost | {address: _FIRST}
        return winner, address

    def put_last(self, host: str, address: Address) -> None:
        """Prefer every other one: nothing useful came of the connection to this one."""
        self._ranks[host] = self._ranks.get(host, {}) | {address: _LAST}


class _Race:
    """Connections in the making; all but the winner's are closed."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.tried: list[Address] = []
        self._left = deque(addresses)
        self._pending: dict[int, tuple[socket.socket, Address]] = {}
        self._poll = select.poll()
        self._failure = OSError("the host has no address")

    def run(self, deadline: float) -> tuple[socket.socket, Address]:
        try:
            while self._left or self._pending:
                patience = remaining(deadline)
                if self._left:
                    patience = min(patience, ATTEMPT_DELAY)
                    self._begin(self._left.popleft())
                if self._pending and (winner := self._wait(patience)):
                    return winner
            raise self._failure
        finally:
            for connection, _ in self._pending.values():
                connection.close()

    def _begin(self, address: Address) -> None:
        self.tried.append(address)
        family, kind, protocol, _, where = address
        connection = None
        try:
            connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with suppress(BlockingIOError):
                connection.connect(where)
        except OSError as error:
            if connection is not None:
                connection.close()
            self._failure = error
        else:
            self._poll.register(connection, select.POLLOUT)
            self._pending[connection.fileno()] = connection, address

    def _wait(self, seconds: float) -> tuple[socket.socket, Address] | None:
        """Give the first one that answers, or nothing in that time or where one fails."""
        for number, _ in self._poll.poll(seconds * 1000):
            connection, address = self._pending.pop(number)
            self._poll.unregister(number)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return connection, address
            connection.close()
            self._failure = OSError(error, os.strerror(error))
        return None


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between the families, in case one of them leads nowhere (section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    pairs = chain.from_iterable(zip_longest(first, others))
    return [address for address in pairs if address is not None]
