"""How often each function waits for the database. Counted by a relay, not timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.model.mails import Kind
from shared.model.sessions import FRESH_SECONDS
from tests.support import express
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.mails import token_for
from tests.support.neon_proxy import NeonProxy
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.stores import user_of
from tests.support.waiting import until

PASSWORD = "correct horse battery staple"
SIGN_UP, CLEAN_UP = 2, 3
SCHEMA_CHECK = 1
"""An instance's very first connection also asks which migrations have been applied."""


@pytest.mark.tcp("it counts what PostgreSQL's wire sees")
@pytest.mark.parametrize("direct", [False, True])
def test_a_new_connection_is_ready_after_few_round_trips(
    postgres: Server, database: str, relay: Relay, direct: bool
) -> None:
    parameters = postgres.direct_tls if direct else {}
    at_most = 5 if parameters else 6
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port, **parameters))
    with closing(Database(url, DatabaseSettings())) as pool:
        pool.execute("SELECT 1")
        assert (relay.connections, relay.flights) == (1, at_most + 1)
        pool.execute("SELECT 1")
        assert (relay.connections, relay.flights) == (1, at_most + 2)


@pytest.fixture
def watched(
    postgres: Server, database: str, relay: Relay, request: pytest.FixtureRequest
) -> Iterator[Emulator]:
    """An emulator whose database is behind the relay, with one connection and no reuse of it."""
    express.install(postgres, database)
    with _watched(postgres, database, relay, DATABASE_MAX_IDLE=request.param) as running:
        yield running


@pytest.fixture
def mailing(postgres: Server, database: str, relay: Relay, tmp_path: Path) -> Iterator[Emulator]:
    """The same where mail is sent, and nobody hears the requests to have it delivered."""
    with _watched(
        postgres,
        database,
        relay,
        DATABASE_MAX_IDLE="300",
        ENVIRONMENT="development",
        FALLBACK="off",
        USERS_FILE=str(tmp_path / "users.json"),
        MAIL_DELIVERY="self",
        PUBLIC_URL="http://127.0.0.1:9",
        SIGN_IN_BY_MAIL="true",
        TRUSTED_PROXIES="1",
    ) as running:
        yield running


@contextmanager
def _watched(postgres: Server, database: str, relay: Relay, **settings: str) -> Iterator[Emulator]:
    with running_emulator(
        DATABASE_URL=postgres.url(database, port=relay.port, **postgres.direct_tls),
        SESSION_SECRET=express.SECRETS,
        DATABASE_MAX_CONNECTIONS="1",
        **settings,
    ) as running:
        yield running


def _operations(client: httpx.Client) -> list[tuple[Callable[[], httpx.Response], int, int]]:
    """Give each call, its round trips, and its status."""
    credentials = {"email": "ada@example.com", "password": PASSWORD}
    new = {"email": "ada@example.com", "password": "another long passphrase"}
    another = {"email": "bob@example.com", "password": PASSWORD}
    change = {"currentPassword": PASSWORD, "newPassword": new["password"]}
    user = client.post("/api/signup", json={"email": "eve@example.com", "password": PASSWORD})
    known = user_of(user.json())
    stale = SessionTokens(Signing([SECRET])).issue(known, time.time() - FRESH_SECONDS - 1).text
    old = {"Cookie": express.cookie(express.RECORDED["sessions"][0])}
    forged = {"Cookie": express.sign("forged", "another secret")}
    return [
        (lambda: client.get("/api/user", headers=old), 1, 200),
        (lambda: client.get("/api/user", headers=forged), 0, 401),
        (lambda: client.post("/api/logout", headers=forged), 0, 200),
        (lambda: client.post("/api/logout", headers=old), 1, 200),
        (lambda: client.get("/api/user", headers=old), 1, 401),
        (lambda: client.post("/api/signup", json=credentials), 2, 201),
        (lambda: client.post("/api/signup", json=credentials), 2, 409),
        (lambda: client.post("/api/login", json=credentials), 2, 200),
        (lambda: client.post("/api/signup", json=another), 2, 201),
        (lambda: client.post("/api/login", json=credentials), 2, 200),
        (lambda: client.post("/api/login", json=credentials | {"password": "wrong"}), 1, 401),
        (lambda: client.get("/api/user"), 0, 200),
        (lambda: client.get("/api/user", headers={"Cookie": f"session={stale}"}), 1, 200),
        (lambda: client.get("/api/health"), 1, 200),
        (lambda: client.get("/api/livez"), 0, 200),
        (lambda: client.get("/api/account"), 1, 200),
        (lambda: client.post("/api/logout"), 1, 200),
        (lambda: client.get("/api/user"), 0, 401),
        (lambda: client.post("/api/logout"), 0, 200),
        (lambda: client.post("/api/login", json=credentials), 2, 200),
        (lambda: client.post("/api/password", json=change | {"currentPassword": "no"}), 1, 403),
        (lambda: client.post("/api/password", json=change), 2, 200),
        (lambda: client.post("/api/logout", json={"everywhere": True}), 1, 200),
        (lambda: client.post("/api/login", json=new), 2, 200),
        (lambda: client.request("DELETE", "/api/account", json=new), 2, 204),
        (lambda: client.post("/api/login", content=b"{"), 0, 415),
        (lambda: client.post("/api/signup", json={"email": "x", "password": PASSWORD}), 0, 400),
    ]


@pytest.fixture
def dial(postgres: Server) -> int:
    """The round trips of a new connection."""
    return 5 if postgres.direct_tls else 6


def _wait_until_what_has_expired_is_deleted(relay: Relay, new: int, dial: int) -> None:
    """Wait for the statements that follow an instance's first answer, and for a minute no other."""
    connections = SIGN_UP + CLEAN_UP if new else 1
    until(lambda: relay.flights >= connections * dial + SCHEMA_CHECK + SIGN_UP + CLEAN_UP)


@pytest.mark.tcp("it counts what PostgreSQL's wire sees")
@pytest.mark.parametrize(("watched", "new"), [("300", 0), ("0", 1)], indirect=["watched"])
def test_each_function_makes_its_round_trips_and_those_of_a_new_connection_and_no_more(
    watched: Emulator, relay: Relay, new: int, dial: int
) -> None:
    with watched.client() as client:
        _check_each_function(client, relay, new, dial)


@pytest.mark.parametrize(("max_idle", "new"), [("300", 0), ("0", 1)])
def test_by_http_each_function_makes_as_many_and_two_for_a_new_connection(
    postgres: Server, database: str, neon: NeonProxy, max_idle: str, new: int
) -> None:
    express.install(postgres, database)
    with (
        Relay(neon.port) as relay,
        running_emulator(
            DATABASE_URL=postgres.url(database),
            DATABASE_TRANSPORT="http",
            DATABASE_HTTP_URL=f"https://localhost:{relay.port}/sql",
            SESSION_SECRET=express.SECRETS,
            DATABASE_MAX_CONNECTIONS="1",
            DATABASE_MAX_IDLE=max_idle,
        ) as running,
        running.client() as client,
    ):
        _check_each_function(client, relay, new, dial=2)  # TCP and TLS, ahead of the request.


def _check_each_function(client: httpx.Client, relay: Relay, new: int, dial: int) -> None:
    operations = _operations(client)
    _wait_until_what_has_expired_is_deleted(relay, new, dial)
    for call, round_trips, status in operations:
        relay.reset()
        assert call().status_code == status
        connections = new * round_trips
        assert (relay.connections, relay.flights) == (
            connections,
            connections * dial + round_trips,
        )


@pytest.mark.tcp("it counts what PostgreSQL's wire sees")
def test_what_is_mailed_costs_no_round_trip(
    mailing: Emulator, postgres: Server, database: str, relay: Relay, dial: int
) -> None:
    ada = {"email": "ada@example.com", "password": PASSWORD}
    home, elsewhere = {"X-Forwarded-For": "198.51.100.1"}, {"X-Forwarded-For": "192.0.2.1"}
    with mailing.client(headers=home) as client:
        user = client.post("/api/signup", json=ada).json()
        until(lambda: relay.flights >= dial + SCHEMA_CHECK + SIGN_UP + CLEAN_UP)

        def token(kind: Kind) -> dict[str, str]:
            return {"token": token_for(user, kind)}

        new = {"newPassword": "another long passphrase"}
        change = {"newEmail": "new@example.com", "password": PASSWORD}
        bob = ada | {"email": "bob@example.com"}
        operations = [
            ("/api/password/forgot", {"email": ada["email"]}, 1, 202),
            ("/api/password/forgot", {"email": "nobody@example.com"}, 1, 202),
            ("/api/login/mail", {"email": ada["email"]}, 1, 202),
            ("/api/email/verification", {}, 1, 202),
            ("/api/email", change, 2, 202),
            ("/api/email/verify", token("password_reset"), 0, 400),
            ("/api/email/verify", token("verification"), 1, 200),
            ("/api/login", ada, 2, 200),
            ("/api/login/mail/verify", token("login_link"), 1, 200),
            ("/api/password/reset", token("password_reset") | new, 2, 200),
            ("/api/password/reset", token("password_reset") | new, 1, 400),
            ("/api/signup", bob, 2, 201),
            ("/api/signup", bob, 2, 409),
        ]
        for path, body, round_trips, status in operations:
            relay.reset()
            answer = client.post(path, json=body)
            assert answer.status_code == status, answer.text
            assert (path, relay.connections, relay.flights) == (path, 0, round_trips)
        relay.reset()
        changed = ada | {"password": new["newPassword"]}
        assert client.post("/api/login", json=changed, headers=elsewhere).status_code == 200
        assert (relay.connections, relay.flights) == (0, 2)
    told = "SELECT count(*) FROM mail_outbox WHERE kind = 'new_sign_in'"
    assert postgres.run(told, database) == [[1]]


@pytest.mark.tcp("it counts what PostgreSQL's wire sees")
@pytest.mark.parametrize("watched", ["300"], indirect=True)
def test_an_instances_first_connection_checks_the_schema_once(
    watched: Emulator, relay: Relay, dial: int
) -> None:
    with watched.client() as client:
        assert client.get("/api/health").json()["database"]["status"] == "connected"
    assert (relay.connections, relay.flights) == (1, dial + SCHEMA_CHECK + 1)
