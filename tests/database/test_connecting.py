"""Dialing: what is refused, what is tried again, and when it ends."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import shared.database.pool
from shared.database.pool import CONNECT_ATTEMPTS, Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable, StoreUnreachable
from tests.support.certificates import Authority
from tests.support.emulator import running_emulator
from tests.support.impostor import READY, Impostor, authentication, error, log_in, message
from tests.support.postgres import Server, free_port, running_pgbouncer, running_postgres
from tests.support.relay import Relay

SETTINGS = DatabaseSettings(timeout=10, connect_timeout=5, max_connections=2)


# What it refuses


@pytest.fixture(scope="module")
def faulty_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """Servers with each fault that a client must not overlook."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    hosts = ("localhost", "127.0.0.1")
    certificates = {
        "self-signed": authority.issue("self-signed", hosts, self_signed=True),
        "wrong host": authority.issue("wrong-host", ("db.example.com",)),
        "expired": authority.issue("expired", hosts, valid_days=-1),
    }
    with (
        running_postgres(
            authority=authority, certificate=certificates["self-signed"]
        ) as self_signed,
        running_postgres(authority=authority, certificate=certificates["wrong host"]) as other,
        running_postgres(authority=authority, certificate=certificates["expired"]) as expired,
        running_postgres(authority=authority, plaintext=True) as plaintext,
    ):
        yield {
            "self-signed": self_signed,
            "wrong host": other,
            "expired": expired,
            "plaintext": plaintext,
        }


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("self-signed", "certificate is not valid for this host: self-signed certificate"),
        ("wrong host", "certificate is not valid for this host: Hostname mismatch"),
        ("expired", "certificate is not valid for this host: certificate has expired"),
        ("plaintext", "does not speak TLS; nothing was sent to it"),
    ],
)
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_a_server_that_cannot_prove_itself_is_refused_at_once(
    faulty_servers: dict[str, Server], fault: str, sentence: str, negotiation: str
) -> None:
    server = faulty_servers[fault]
    with Relay(server.port) as relay:
        url = server.url("postgres", port=relay.port, sslnegotiation=negotiation)
        with closing(Database(DatabaseUrl.parse(url), SETTINGS)) as pool:
            if (fault, negotiation) == ("plaintext", "direct"):
                # It hangs up on what it takes for a garbled startup message.
                with pytest.raises(StoreUnavailable):
                    pool.execute("SELECT 1")
                return
            with pytest.raises(StoreRefused, match=sentence):
                pool.execute("SELECT 1")
        assert relay.connections == 1
        assert pool.counts().total == 0


def _refusals(server: Server) -> dict[str, tuple[str, str]]:
    return {
        "wrong password": (server.url("postgres", password="wrong"), "28P01"),
        "unknown user": (server.url("postgres", user="nobody"), "28P01"),
        "unknown database": (server.url("nowhere"), "3D000"),
        "unusable option": (server.url("postgres", options="-c%20nonsense%3D1"), "42704"),
    }


@pytest.mark.parametrize(
    "fault", ["wrong password", "unknown user", "unknown database", "unusable option"]
)
def test_a_refused_login_is_not_tried_again(postgres: Server, relay: Relay, fault: str) -> None:
    url, sqlstate = _refusals(postgres)[fault]
    parsed = replace(DatabaseUrl.parse(url), port=relay.port)
    with closing(Database(parsed, SETTINGS)) as pool:
        with pytest.raises(StoreRefused, match=sqlstate):
            pool.execute("SELECT 1")
        assert relay.connections == 1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), (StoreRefused, 1)),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), (StoreUnreachable, CONNECT_ATTEMPTS)),
    ],
)
def test_only_a_name_that_may_be_resolved_later_is_looked_up_again(
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    failure: OSError,
    expected: tuple[type[Exception], int],
) -> None:
    lookups = []

    def fail(*arguments: Any, **_: Any) -> Any:
        lookups.append(arguments)
        raise failure

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with closing(Database(DatabaseUrl.parse(postgres.url("postgres")), SETTINGS)) as pool:
        kind, times = expected
        with pytest.raises(kind):
            pool.execute("SELECT 1")
    assert len(lookups) == times


def test_a_host_that_cannot_be_a_name_is_refused(postgres: Server) -> None:
    url = DatabaseUrl.parse(postgres.url("postgres", host="x" * 70))
    with (
        closing(Database(url, SETTINGS)) as pool,
        pytest.raises(StoreUnavailable, match="host's name"),
    ):
        pool.execute("SELECT 1")


def test_a_resolver_that_hangs_does_not_stretch_the_deadline(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        released.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    settings = SETTINGS._replace(connect_timeout=0.3)
    started = time.monotonic()
    try:
        with (
            closing(Database(DatabaseUrl.parse(postgres.url("postgres")), settings)) as pool,
            pytest.raises(StoreUnreachable, match="longer than its deadline"),
        ):
            pool.execute("SELECT 1")
        assert time.monotonic() - started < 3
    finally:
        released.set()


def test_channel_binding_is_used_where_it_is_required(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database, channel_binding="require"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]


def test_missing_channel_binding_is_refused_before_the_password(
    postgres: Server, database: str, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1) as pooler:
        url = DatabaseUrl.parse(postgres.url(database, port=pooler.port))
        with closing(Database(url, SETTINGS)) as pool:
            assert pool.execute("SELECT 1") == [[1]]
        bound = replace(url, require_channel_binding=True)
        with (
            closing(Database(bound, SETTINGS)) as pool,
            pytest.raises(StoreRefused, match="no password was sent"),
        ):
            pool.execute("SELECT 1")


@pytest.mark.parametrize("bound", [False, True])
def test_a_server_that_skips_its_own_proof_is_refused_and_asked_nothing(
    tmp_path: Path, bound: bool
) -> None:
    authority = Authority(tmp_path)
    heard = []

    def pretend(tls: ssl.SSLSocket, _: int) -> None:
        tls.sendall(authentication(10, b"SCRAM-SHA-256-PLUS\0\0"))
        tls.recv(4096)
        tls.sendall(authentication(0) + READY)
        heard.append(tls.recv(4096))

    with Impostor(authority, pretend) as impostor:
        url = impostor.url(authority, bound=bound)
        with (
            closing(Database(url, SETTINGS)) as pool,
            pytest.raises(StoreRefused, match="did not prove that it knows the password"),
        ):
            pool.execute("SELECT 1")
    assert heard in ([b""], [message(b"X")]), "nothing but good-bye"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("plaintext", "does not speak TLS"),
        ("self-signed", "self-signed certificate"),
        ("wrong host", "Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("wrong password", "28P01"),
        ("unknown database", "3D000"),
        ("missing channel binding", "no password was sent"),
    ],
)
def test_each_refusal_is_a_sentence_in_the_log_and_a_bare_503_outside(
    postgres: Server, faulty_servers: dict[str, Server], fault: str, sentence: str, request: Any
) -> None:
    with ExitStack() as stack:
        if fault in faulty_servers:
            url = faulty_servers[fault].url("postgres")
        elif fault == "missing channel binding":
            request.getfixturevalue("pgbouncer_program")
            port = stack.enter_context(running_pgbouncer(postgres, server_connections=1)).port
            url = postgres.url("postgres", port=port, channel_binding="require")
        else:
            url, _ = _refusals(postgres)[fault]
        _check_refusal(url, sentence, postgres.port)


def _check_refusal(url: str, sentence: str, port: int) -> None:
    with running_emulator(DATABASE_URL=url) as emulator, emulator.client() as client:
        response = client.post(
            "/api/login", json={"email": "ada@example.com", "password": "correct horse"}
        )
        health = client.get("/api/health")
        log = emulator.output()
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert health.status_code == 200
    assert health.json()["database"] == {
        "status": "disconnected",
        "message": "Database not connected",
    }
    for text in (response.text, health.text):
        for secret in ("localhost", str(port), "certificate", "app", "TLS", "28P01"):
            assert secret not in text
    assert sentence in log
    assert "p@ss" not in log
    assert "p%40ss" not in log


# What it retries


def test_a_connection_that_was_hung_up_on_is_dialed_again(
    postgres: Server, database: str, relay: Relay
) -> None:
    relay.hang_up = CONNECT_ATTEMPTS - 1
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT 1") == [[1]]
        assert relay.connections == CONNECT_ATTEMPTS


@pytest.mark.parametrize(
    ("sqlstate", "text", "waited_for"),
    [
        ("57P03", "the database system is starting up", True),
        ("XX000", "Couldn't connect to compute node", True),
        ("XX000", "Control plane request failed", True),
        ("08P01", "server login has been failing, cached error: connect failed", True),
        ("XX000", "Control plane request failed: endpoint is disabled", False),
        ("XX000", "Control plane request failed: endpoint cannot be found", False),
        ("XX000", "Control plane request failed: endpoint is temporarily unavailable. …", False),
        ("XX000", "The endpoint is disabled. Enable it and try again.", False),
        ("XX000", "password authentication failed for user 'u'", False),
        ("28000", "no pg_hba.conf entry", False),
    ],
)
def test_a_server_that_wakes_up_is_waited_for_and_one_that_refuses_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlstate: str, text: str, waited_for: bool
) -> None:
    monkeypatch.setattr(shared.database.pool, "CONNECT_BACKOFF", 0.01)
    authority = Authority(tmp_path)
    awake_at = 6

    def wake_slowly(tls: ssl.SSLSocket, number: int) -> None:
        if number < awake_at:
            tls.sendall(error(sqlstate, text))
        else:
            log_in(tls)
        tls.recv(4096)

    with Impostor(authority, wake_slowly) as impostor:
        url = impostor.url(authority)
        pool = Database(url, SETTINGS)
        deadline = time.monotonic() + 10
        if waited_for:
            with pool.direct_connection(deadline):
                assert impostor.connections == awake_at
        else:
            with pytest.raises(StoreRefused), pool.direct_connection(deadline):
                pass
            assert impostor.connections == 1


def test_a_server_without_room_is_asked_a_few_times_and_no_more(
    postgres: Server, database: str, relay: Relay
) -> None:
    postgres.run("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    url = DatabaseUrl.parse(
        postgres.url(database, port=relay.port, user="crowded", password="crowded")
    )
    # However busy the machine is, all attempts fit.
    settings = SETTINGS._replace(timeout=60, connect_timeout=50)
    with closing(Database(url, settings)) as pool:
        with pytest.raises(StoreUnreachable, match="53300"):
            pool.execute("SELECT 1")
        assert relay.connections == CONNECT_ATTEMPTS


def test_a_server_that_is_gone_is_away_soon(postgres: Server) -> None:
    url = DatabaseUrl.parse(postgres.url("postgres", port=free_port()))
    with (
        closing(Database(url, SETTINGS)) as pool,
        pytest.raises(StoreUnreachable, match="cannot connect: ConnectionRefusedError"),
    ):
        pool.execute("SELECT 1")


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
def test_one_deadline_covers_the_whole_connect(postgres: Server, negotiation: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = DatabaseUrl.parse(
            postgres.url("postgres", port=silent.getsockname()[1], sslnegotiation=negotiation)
        )
        settings = SETTINGS._replace(connect_timeout=0.5)
        started = time.monotonic()
        with (
            closing(Database(url, settings)) as pool,
            pytest.raises(StoreUnreachable, match="longer than its deadline"),
        ):
            pool.execute("SELECT 1")
        assert 0.4 < time.monotonic() - started < 3


def test_a_server_that_trickles_its_answer_does_not_stretch_the_deadline(
    postgres: Server,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(8)
                connection.sendall(b"S")
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b"\x16")
                    except OSError:
                        return

        server = threading.Thread(target=trickle)
        server.start()
        url = DatabaseUrl.parse(postgres.url("postgres", port=listener.getsockname()[1]))
        settings = SETTINGS._replace(connect_timeout=0.5)
        started = time.monotonic()
        try:
            with closing(Database(url, settings)) as pool, pytest.raises(StoreUnavailable):
                pool.execute("SELECT 1")
            assert time.monotonic() - started < 3
        finally:
            stop.set()
            server.join()


def test_an_ipv6_host_is_dialed_and_verified(postgres: Server, database: str) -> None:
    try:
        relay = Relay(postgres.port, "::1")
    except OSError:
        if os.environ.get("CI"):
            raise
        pytest.skip("this machine has no IPv6 loopback address: `ip addr add ::1/128 dev lo`")
    with relay:
        url = DatabaseUrl.parse(postgres.url(database, host="[::1]", port=relay.port))
        with closing(Database(url, SETTINGS)) as pool:
            assert pool.execute("SELECT 1") == [[1]]
        assert relay.connections == 1


def test_options_reach_the_server(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database, options="-c%20geqo_seed%3D0.25"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT current_setting('geqo_seed')") == [["0.25"]]
