"""A host of several addresses: the dead ones cost a moment once, and nothing from then on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreUnreachable
from shared.happy_eyeballs import ATTEMPT_DELAY
from tests.support.postgres import Server, free_port
from tests.support.relay import BLACK_HOLE, FORWARD, HANG_UP, REFUSE, Relay

SETTINGS = DatabaseSettings(timeout=20, connect_timeout=10, max_idle=0)
"""Each statement has a connection of its own."""
BUSY = 1.5
"""Seconds that a busy machine may take for a connection that takes none."""

Place = tuple[str, int]
Resolved = Callable[..., None]


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Resolved:
    """Let the name localhost have these addresses, in this order."""
    resolve = socket.getaddrinfo

    def to(*places: Place) -> None:
        def addresses(host: str, port: int, *more: Any, **options: Any) -> Any:
            found = places if host == "localhost" else [(host, port)]
            return [address for place in found for address in resolve(*place, *more, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", addresses)

    return to


@contextmanager
def _dead(*hosts: str) -> Iterator[list[Place]]:
    """Addresses that answer nothing: packets to them are dropped, because their queue is full."""
    with ExitStack() as stack:
        places = []
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = stack.enter_context(socket.socket(family))
            listener.bind((host, 0))
            listener.listen(0)
            place = (host, listener.getsockname()[1])
            for _ in range(3):
                waiting = stack.enter_context(socket.socket(family))
                waiting.setblocking(False)
                waiting.connect_ex(place)
            places.append(place)
        yield places


def _pool(server: Server, database: str, **settings: Any) -> Database:
    return Database(DatabaseUrl.parse(server.url(database)), SETTINGS._replace(**settings))


def _seconds(pool: Database) -> float:
    began = time.monotonic()
    assert pool.execute("SELECT 1") == [[1]]
    return time.monotonic() - began


def test_dead_addresses_cost_a_moment_each_and_the_one_that_answers_is_first_from_then_on(
    postgres: Server, database: str, relay: Relay, resolved: Resolved
) -> None:
    with (
        _dead("127.0.0.2", "127.0.0.3", "127.0.0.4") as dead,
        closing(_pool(postgres, database)) as pool,
    ):
        resolved(*dead, ("127.0.0.1", relay.port), ("127.0.0.1", postgres.port))
        assert 3 * ATTEMPT_DELAY < _seconds(pool) < 3 * ATTEMPT_DELAY + BUSY
        assert relay.connections == 1
        assert min(_seconds(pool) for _ in range(3)) < ATTEMPT_DELAY
        assert relay.connections == 4
        relay.mode = REFUSE
        assert min(_seconds(pool) for _ in range(3)) < ATTEMPT_DELAY, (
            "the next one is tried at once"
        )
        relay.mode = FORWARD
        pool.execute("SELECT 1")
        assert relay.connections == 4, "and stays first"


def test_a_family_that_leads_nowhere_holds_up_one_moment(
    postgres: Server, database: str, resolved: Resolved
) -> None:
    if not _has_ipv6():
        if os.environ.get("CI"):
            raise AssertionError("no IPv6 loopback address")
        pytest.skip("this machine has no IPv6 loopback address: `ip addr add ::1/128 dev lo`")
    with _dead("::1", "::1", "::1", "::1") as dead, closing(_pool(postgres, database)) as pool:
        resolved(*dead, ("127.0.0.1", postgres.port))
        assert _seconds(pool) < 4 * ATTEMPT_DELAY


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("mode", [HANG_UP, BLACK_HOLE])
def test_an_address_that_answers_and_leads_to_no_server_is_the_last_from_then_on(
    postgres: Server, database: str, relay: Relay, resolved: Resolved, mode: Any
) -> None:
    relay.mode = mode
    resolved(("127.0.0.1", relay.port), ("127.0.0.1", postgres.port))
    # Only silence takes this long.
    settings = {"connect_timeout": 1.0 if mode is BLACK_HOLE else 10.0}
    with closing(_pool(postgres, database, **settings)) as pool:
        if mode is BLACK_HOLE:
            with pytest.raises(StoreUnreachable, match="longer than its deadline"):
                pool.execute("SELECT 1")
            pool.breaker.close()
        assert pool.execute("SELECT 1") == [[1]]
        assert pool.execute("SELECT 1") == [[1]]
        assert relay.connections == 1


def test_where_every_address_refuses_the_host_is_away_soon_and_may_come_back(
    postgres: Server, database: str, resolved: Resolved
) -> None:
    resolved(("127.0.0.2", free_port()), ("127.0.0.3", free_port()))
    with closing(_pool(postgres, database)) as pool:
        with pytest.raises(StoreUnreachable, match="ConnectionRefusedError"):
            pool.execute("SELECT 1")
        pool.breaker.close()
        resolved(("127.0.0.1", postgres.port))
        assert pool.execute("SELECT 1") == [[1]]
