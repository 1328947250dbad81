"""What poolers and proxies say when they give no session: wait, try a few times, or end at once."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.database import refusals
from shared.database.pool import CONNECT_ATTEMPTS, Database
from shared.database.refusals import Refusal
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreUnavailable, StoreUnreachable
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.certificates import Authority
from tests.support.impostor import READY, Impostor, error, log_in, message
from tests.support.postgres import PgBouncer, Server, running_pgbouncer
from tests.support.relay import Relay
from tests.support.waiting import until

SETTINGS = DatabaseSettings(timeout=20, connect_timeout=10, max_connections=1)
PLANE = "Control plane request failed"
FAILING = "server login has been failing, cached error:"
RETRY = "(server_login_retry)"

TEXTS = {
    Refusal.STARTING: [
        ("57P03", "the database system is starting up"),
        ("57P03", "das Datenbanksystem startet"),
        ("XX000", PLANE),
        ("XX000", f"{PLANE}. "),
        ("XX000", "Console request failed"),
        ("XX000", "Couldn't connect to compute node"),
        ("XX000", "Too many connections attempts"),
        ("XX000", "Failed to acquire permit to connect to the database. Too many database …"),
        ("08P01", "server login has been failing, try again later (server_login_retry)"),
        ("08P01", f"{FAILING} connect failed {RETRY}"),
        ("08P01", f"{FAILING} the database system is starting up {RETRY}"),
        ("08P01", "the database system is not yet accepting connections"),
        ("08P01", "pgbouncer cannot connect to server"),
    ],
    Refusal.BUSY: [
        ("53300", "sorry, too many clients already"),
        ("53300", "zu viele Verbindungen für Rolle »app«"),
        ("53200", "out of memory"),
        ("57P01", "terminating connection due to administrator command"),
        ("08006", "any"),
        ("08P01", "no more connections allowed (max_client_conn)"),
        ("08P01", "client connections exceeded (max_db_client_connections)"),
        ("08P01", "query_wait_timeout"),
        ("08P01", "client_login_timeout"),
        ("08P01", "client_login_timeout (server down)"),
        ("08P01", "server shutting down"),
        ("08P01", "sorry, too many clients already"),
        ("08P01", 'too many connections for role "app"'),
        ("08P01", "remaining connection slots are reserved for roles with the SUPERUSER attribute"),
        ("08P01", f'{FAILING} too many connections for database "d" {RETRY}'),
        ("XX000", "Too many connections to this endpoint. Please try again later."),
        ("XX000", "MaxClientsInSessionMode: max clients reached - in Session mode max clients …"),
        ("XX000", "Max client connections reached"),
    ],
    Refusal.FINAL: [
        ("28P01", 'password authentication failed for user "app"'),
        ("3D000", 'database "d" does not exist'),
        ("42704", 'unrecognized configuration parameter "nonsense"'),
        ("55000", 'database "d" is not currently accepting connections'),
        ("XX000", f"{PLANE}: endpoint is disabled"),
        ("XX000", f"{PLANE}: endpoint cannot be found"),
        ("XX000", f"{PLANE}: endpoint is temporarily unavailable. Check your quotas and/or …"),
        ("XX000", f"{PLANE}: anything else"),
        ("XX000", "Your account or project has exceeded the compute time quota. Upgrade …"),
        ("XX000", "You have exceeded the limit of concurrently active endpoints."),
        ("XX000", "This IP address 192.0.2.1 is not allowed to connect to this endpoint."),
        ("XX000", "password authentication failed for user 'app'"),
        ("XX000", "Endpoint ID is not specified. …"),
        ("XX000", "Tenant or user not found"),
        ("08P01", "transaction blocks not allowed in statement pooling mode"),
        ("08P01", "no such database: d"),
        ("08P01", "no such user: app"),
        ("08P01", 'database "d" does not exist'),
        ("08P01", f'{FAILING} database "d" does not exist {RETRY}'),
        ("08P01", f'{FAILING} password authentication failed for user "app" {RETRY}'),
        ("08P01", "SASL authentication failed"),
        ("08P01", "unsupported startup parameter in options: search_path"),
        ("08P01", "bouncer config error"),
        ("28000", "the database system is starting up"),
    ],
}


@pytest.mark.parametrize(
    ("refusal", "code", "text"),
    [(refusal, *known) for refusal, texts in TEXTS.items() for known in texts],
)
def test_each_refusal_is_worth_what_it_says(refusal: Refusal, code: str, text: str) -> None:
    assert refusals.of_login(code, text) is refusal


@pytest.fixture(scope="module")
def bouncer(postgres: Server, pgbouncer_program: str) -> Iterator[PgBouncer]:
    with running_pgbouncer(
        postgres, server_connections=1, max_client_conn=1, query_wait_timeout="1"
    ) as running:
        yield running


def test_a_pooler_that_is_full_is_asked_a_few_times_and_is_then_away(
    postgres: Server, database: str, bouncer: PgBouncer
) -> None:
    with Relay(bouncer.port) as relay:
        url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
        with closing(Database(url, SETTINGS)) as first, closing(Database(url, SETTINGS)) as second:
            assert first.execute("SELECT 1") == [[1]]
            relay.reset()
            with pytest.raises(StoreUnreachable, match="no more connections allowed"):
                second.execute("SELECT 1")
            assert relay.connections >= CONNECT_ATTEMPTS, "and then those of the breaker"
            first.close()
            assert _until_it_answers(second) == [[1]]


def _until_it_answers(pool: Database) -> list[list[object]]:
    until(lambda: not pool.breaker.is_open)
    return pool.execute("SELECT 1")


@pytest.mark.parametrize(
    ("change", "error", "cause"),
    [
        ({"database": "nowhere"}, StoreRefused, 'database "nowhere" does not exist'),
        ({"user": "nobody"}, StoreRefused, "SASL authentication failed"),
        (
            {"options": "-c search_path=auth"},
            StoreRefused,
            "unsupported startup parameter.*: remove options",
        ),
        ({}, StoreUnreachable, "too many connections for database"),
    ],
)
def test_what_a_pooler_was_told_by_the_server_is_worth_what_the_server_would_be(
    postgres: Server,
    database: str,
    bouncer: PgBouncer,
    change: dict[str, Any],
    error: type[Exception],
    cause: str,
) -> None:
    url = replace(DatabaseUrl.parse(postgres.url(database, port=bouncer.port)), **change)
    postgres.run(f"ALTER DATABASE {database} CONNECTION LIMIT 0")
    settings = SETTINGS._replace(connect_timeout=1)
    with closing(Database(url, settings)) as pool, pytest.raises(error, match=cause):
        pool.execute("SELECT 1")


def test_a_pooler_that_takes_no_transactions_is_told_how_to(
    postgres: Server, database: str, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1, pool_mode="statement") as pooler:
        url = DatabaseUrl.parse(postgres.url(database, port=pooler.port))
        with pytest.raises(StoreRefused, match="statement pooling mode: set pool_mode = trans"):
            bring_up_to_date(url, SETTINGS)
        with closing(Database(url, SETTINGS)) as pool:
            assert pool.execute("SELECT 1") == [[1]]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("08P01 no such database: d", "08P01 no such database: d: add it to [databases]"),
        ("08P01 no such user: app", "auth_file"),
        ("08P01 SASL authentication failed", "08P01 SASL authentication failed"),
    ],
)
def test_what_a_pooler_says_is_told_with_the_remedy_that_is_known(said: str, remedy: str) -> None:
    assert remedy in refusals.with_remedy(said)


LAST_WORDS = [
    ("08P01", "query_wait_timeout", StoreUnreachable, 2),
    ("08P01", "client_idle_timeout", StoreUnreachable, 2),
    ("08P01", "server conn crashed?", StoreUnreachable, 2),
    ("08P01", f"{FAILING} connect failed {RETRY}", StoreUnreachable, 2),
    ("57P01", "terminating connection due to administrator command", StoreUnreachable, 2),
    ("57P05", "terminating connection due to idle-session timeout", StoreUnreachable, 2),
    ("08P01", f'{FAILING} database "d" does not exist {RETRY}', StoreRefused, 1),
    ("26000", "unnamed prepared statement does not exist", StoreUnavailable, 2),
    ("34000", 'portal "" does not exist', StoreUnavailable, 2),
]


@pytest.mark.parametrize("answers_later", [True, False])
@pytest.mark.parametrize(("code", "text", "failure", "attempts"), LAST_WORDS)
def test_a_statement_that_got_no_server_is_repeated_once_and_the_last_word_is_the_cause(
    tmp_path: Path,
    code: str,
    text: str,
    failure: type[StoreUnavailable],
    attempts: int,
    answers_later: bool,
) -> None:
    authority = Authority(tmp_path)
    keeps = code in ("26000", "34000")

    def end(tls: ssl.SSLSocket, number: int) -> None:
        log_in(tls)
        tls.recv(4096)
        answers = answers_later and number > 1
        tls.sendall(message(b"C", b"SELECT 0\0") if answers else error(code, text))
        if answers or keeps:
            tls.sendall(READY)
            tls.recv(4096)

    with (
        Impostor(authority, end) as impostor,
        closing(Database(impostor.url(authority), SETTINGS)) as pool,
    ):
        if answers_later and attempts > 1:
            assert pool.execute("SELECT 1") == []
        else:
            with pytest.raises(failure, match=code) as raised:
                pool.execute("SELECT 1")
            assert type(raised.value) is failure
            assert text in str(raised.value.cause)
        assert impostor.connections >= attempts, "and then those of the breaker"


@pytest.mark.long
def test_a_statement_for_which_a_pooler_has_no_server_in_time_says_so(
    postgres: Server, database: str, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=1, query_wait_timeout="1") as bouncer:
        url = DatabaseUrl.parse(postgres.url(database, port=bouncer.port))
        with (
            closing(Database(url, SETTINGS)) as pool,
            pool.direct_connection(time.monotonic() + 60) as connection,
        ):
            connection.run_script("BEGIN")
            connection.run_script("SELECT 1")
            with pytest.raises(StoreUnreachable, match="query_wait_timeout"):
                pool.execute("SELECT 1")
            connection.run_script("COMMIT")
            assert _until_it_answers(pool) == [[1]]
