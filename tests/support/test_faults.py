"""What the faults of the tests do is what their names say."""

from __future__ import annotations

import socket
import socketserver
import struct
import time
from collections.abc import Iterator
from contextlib import closing

import pg8000.native
import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable, StoreUnreachable
from tests.support.postgres import USER, Server, running_pgbouncer, running_postgres
from tests.support.relay import (
    BLACK_HOLE,
    FLAP,
    FORWARD,
    HANG_UP,
    NO_TLS,
    REFUSE,
    TRICKLE,
    Mode,
    Relay,
)
from tests.support.serving import serving

SETTINGS = DatabaseSettings(timeout=3, connect_timeout=1, statement_timeout=1)


class _Echo(socketserver.BaseRequestHandler):
    """Says what it was told."""

    def handle(self) -> None:
        connection: socket.socket = self.request
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
        except ConnectionError:
            return


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The port of a server that says what it is told."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        with serving(server):
            yield server.server_address[1]


@pytest.fixture
def before_echo(echo: int) -> Iterator[Relay]:
    """A relay before that server."""
    with Relay(echo) as running:
        yield running


def _connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), 2)


def _ask(
    connection: socket.socket, data: bytes = b"hello", heard: bytearray | None = None
) -> bytearray:
    """Say something, and give what is heard until it is as long, or the other side ends."""
    heard = bytearray() if heard is None else heard
    connection.sendall(data)
    while len(heard) < len(data) and (chunk := connection.recv(65536)):
        heard += chunk
    return heard


# The relay


def test_a_port_that_refuses_does_so_until_it_is_open_again(before_echo: Relay) -> None:
    with _connect(before_echo) as open_before:
        assert _ask(open_before) == b"hello"
        for _ in range(3):
            before_echo.mode = REFUSE
            with pytest.raises(ConnectionRefusedError):
                _connect(before_echo)
            before_echo.mode = FORWARD
            with _connect(before_echo) as connection:
                assert _ask(connection) == b"hello"
        assert _ask(open_before) == b"hello"
    assert before_echo.connections == 4


def test_a_cut_resets_every_open_connection_and_no_later_one(before_echo: Relay) -> None:
    with _connect(before_echo) as one, _connect(before_echo) as other:
        assert _ask(one) == _ask(other) == b"hello"
        before_echo.cut()
        for connection in (one, other):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    with _connect(before_echo) as connection:
        assert _ask(connection) == b"hello"


@pytest.mark.parametrize("is_open", [True, False])
def test_nothing_comes_out_of_a_black_hole_until_it_is_none(
    before_echo: Relay, is_open: bool
) -> None:
    if not is_open:
        before_echo.mode = BLACK_HOLE
    with _connect(before_echo) as connection:
        if is_open:
            assert _ask(connection) == b"hello"
            before_echo.mode = BLACK_HOLE
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            _ask(connection)
        connection.settimeout(2)
        before_echo.mode = FORWARD
        assert connection.recv(10) == b"hello"


def test_who_is_hung_up_on_was_accepted_and_is_seen(before_echo: Relay) -> None:
    before_echo.mode = HANG_UP
    started = time.monotonic()
    for _ in range(2):
        with _connect(before_echo) as connection:
            assert connection.recv(1) == b""
    assert before_echo.connections == len(before_echo.connect_times) == 2
    assert started < before_echo.connect_times[0] < before_echo.connect_times[1]


def test_of_a_port_that_flaps_every_second_connection_holds(before_echo: Relay) -> None:
    before_echo.mode = FLAP
    holds = []
    for _ in range(4):
        with _connect(before_echo) as connection:
            try:
                holds.append(_ask(connection) == b"hello")
            except ConnectionError:
                holds.append(False)
    assert holds == [False, True, False, True]


def test_a_delay_is_each_way_and_takes_nothing_away(before_echo: Relay) -> None:
    before_echo.mode = Mode(delay=0.1)
    with _connect(before_echo) as connection:
        started = time.monotonic()
        assert _ask(connection, b"x" * 200_000) == b"x" * 200_000
        assert 0.2 <= time.monotonic() - started < 2


def test_a_trickle_is_as_many_bytes_a_second_as_were_asked_for(before_echo: Relay) -> None:
    before_echo.mode = Mode(rate=100)
    with _connect(before_echo) as connection:
        started = time.monotonic()
        assert _ask(connection, b"x" * 20) == b"x" * 20
        assert 0.15 < time.monotonic() - started < 2
        before_echo.mode = TRICKLE
        connection.sendall(b"xx")
        assert connection.recv(2) == b"x"
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.mark.parametrize("number", [1, 7, 10])
def test_a_connection_is_reset_after_so_many_bytes_of_one_side(
    before_echo: Relay, number: int
) -> None:
    with _connect(before_echo) as connection:
        assert _ask(connection) == b"hello"
        before_echo.mode = Mode(answer_bytes=number)
        heard = bytearray()
        with pytest.raises(ConnectionResetError):
            _ask(connection, b"0123456789" * 2, heard)
        assert heard == b"0123456789"[:number]
    before_echo.mode = Mode(request_bytes=number)
    with _connect(before_echo) as connection, pytest.raises(ConnectionResetError):
        _ask(connection, b"0123456789" * 2)


def test_a_server_without_tls_says_so_and_hears_what_is_said_in_the_clear(
    before_echo: Relay,
) -> None:
    before_echo.mode = NO_TLS
    with _connect(before_echo) as connection:
        connection.sendall(struct.pack("!ii", 8, 80877103))
        assert connection.recv(2) == b"N"
        connection.sendall(b"password")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert before_echo.plaintext == b"password"
    with _connect(before_echo) as connection:
        connection.sendall(b"\x16\x03\x01")
        assert connection.recv(1) == b""


def test_whoever_is_behind_the_relay_may_be_away(before_echo: Relay) -> None:
    with Relay(before_echo.port) as outer:
        before_echo.mode = REFUSE
        with pytest.raises(ConnectionResetError), _connect(outer) as connection:
            _ask(connection)
        before_echo.mode = FORWARD
        with _connect(outer) as connection:
            assert _ask(connection) == b"hello"


# PostgreSQL, which the tests of other files share, and which is therefore another one here


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose faults are nobody else's."""
    with running_postgres() as running:
        running.run("CREATE DATABASE bench")
        yield running


@pytest.fixture
def pool(server: Server) -> Iterator[Database]:
    """A pool that holds one open connection."""
    with closing(Database(DatabaseUrl.parse(server.url("bench")), SETTINGS)) as opened:
        assert opened.execute("SELECT 1") == [[1]]
        yield opened


def test_a_server_that_was_stopped_or_restarted_has_its_port_and_its_data(
    server: Server, pool: Database
) -> None:
    server.run("CREATE TABLE kept AS SELECT 7 AS n", "bench")
    with server.stopped():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1)
        with pytest.raises(StoreUnreachable):
            pool.execute("SELECT 1")
    assert server.run("SELECT n FROM kept", "bench") == [[7]]
    server.restart()
    assert server.run("SELECT n FROM kept", "bench") == [[7]]


def test_a_frozen_server_accepts_and_does_not_answer(server: Server, pool: Database) -> None:
    with server.frozen():
        with closing(socket.create_connection(("127.0.0.1", server.port), 1)) as connection:
            connection.sendall(struct.pack("!ii", 8, 80877103))
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        with pytest.raises(StoreUnavailable):
            pool.execute("SELECT 1")
    assert server.run("SELECT 1", "bench") == [[1]]


def test_a_read_only_database_refuses_writes_until_it_is_none(server: Server) -> None:
    server.run("CREATE TABLE written (n int)", "bench")
    with (
        server.read_only("bench"),
        pytest.raises(pg8000.native.DatabaseError, match="25006"),
    ):
        server.run("INSERT INTO written VALUES (1)", "bench")
    server.run("INSERT INTO written VALUES (1)", "bench")


def test_a_database_without_room_keeps_its_sessions_and_takes_no_more(
    server: Server, pool: Database
) -> None:
    with server.out_of_connections("bench"):
        assert pool.execute("SELECT 1") == [[1]]
        with pytest.raises(pg8000.native.DatabaseError, match="53300"):
            server.connect("bench", USER)
    server.connect("bench", USER).close()


def test_terminated_sessions_are_gone(server: Server, pool: Database) -> None:
    counts = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'bench'"
    assert server.terminate_backends("bench") == 1
    assert server.run(counts) == [[0]]
    assert pool.execute("SELECT 1") == [[1]], "a connection that has died is replaced"


def test_a_paused_pooler_lets_everybody_wait(server: Server, pgbouncer_program: str) -> None:
    with running_pgbouncer(server, server_connections=1) as pooler:
        url = DatabaseUrl.parse(server.url("bench", port=pooler.port))
        for _ in range(2):
            with closing(Database(url, SETTINGS)) as pool:
                assert pool.execute("SELECT 1") == [[1]]
                with pooler.paused(), pytest.raises(StoreUnavailable):
                    pool.execute("SELECT 1")


def test_a_client_whose_tls_was_refused_tells_its_password_to_nobody(server: Server) -> None:
    with Relay(server.port) as relay:
        relay.mode = NO_TLS
        url = DatabaseUrl.parse(server.url("bench", port=relay.port))
        with closing(Database(url, SETTINGS)) as pool, pytest.raises(StoreRefused):
            pool.execute("SELECT 1")
    assert relay.connections == 1
    assert relay.plaintext == b""
