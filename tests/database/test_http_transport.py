"""Statements by HTTP: what they cost, what bounds them, and what each answer means."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.statement import Statement
from shared.errors import (
    StoreFault,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    StoreUnreachable,
)
from shared.observe import metrics
from tests.support.certificates import Authority
from tests.support.neon_pools import SETTINGS, by_http
from tests.support.neon_proxy import (
    HTML,
    STARTING,
    Answer,
    Fault,
    NeonProxy,
    answering,
    closing_after,
    cut,
    hanging_up,
    lost,
    raw,
    saying_so,
    silent,
    trickling,
)
from tests.support.postgres import Server
from tests.support.relay import HANG_UP, REFUSE, Relay
from tests.support.waiting import until

COUNT = "INSERT INTO counted VALUES (1)"


@pytest.fixture
def url(postgres: Server, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def pool(url: str, neon: NeonProxy) -> Iterator[Database]:
    with by_http(url, neon.port) as opened:
        yield opened


def _failure(pool: Database, kind: type[StoreUnavailable], statement: str = "SELECT 1") -> str:
    with pytest.raises(StoreUnavailable) as raised:
        pool.execute(statement)
    assert type(raised.value) is kind, raised.value
    return str(raised.value.cause)


def _said(status: int, **members: str | None) -> Fault:
    return answering(Answer.json(status, members))


# What it costs.


def test_a_first_statement_takes_three_round_trips_and_each_further_one_takes_one(
    url: str, neon: NeonProxy
) -> None:
    """TCP, TLS and the request; over TCP it is six, or five where TLS begins at once."""
    with Relay(neon.port) as relay, by_http(url, relay.port) as pool:
        before = metrics.ROUND_TRIPS.total
        for number in range(3):
            pool.execute("SELECT 1")
            assert (relay.connections, relay.flights) == (1, 3 + number)
        # What the metric counts leaves the connecting aside.
        assert metrics.ROUND_TRIPS.total - before == 3


def test_two_statements_at_once_use_two_connections_and_one_after_another_the_same(
    pool: Database, neon: NeonProxy
) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: pool.execute("SELECT pg_sleep(0.3)"), range(2)))
    assert neon.connections == pool.counts().total == 2
    for _ in range(5):
        pool.execute("SELECT 1")
    assert neon.connections == 2


def test_no_more_connections_are_opened_than_there_may_be(url: str, neon: NeonProxy) -> None:
    with (
        by_http(url, neon.port, SETTINGS._replace(max_connections=2)) as pool,
        ThreadPoolExecutor(8) as threads,
    ):
        list(threads.map(lambda _: pool.execute("SELECT pg_sleep(0.05)"), range(24)))
    assert neon.connections == 2


def test_tickets_of_tls_are_no_sign_of_a_closed_connection(postgres: Server, database: str) -> None:
    with (
        NeonProxy(postgres, tickets=2) as neon,
        by_http(postgres.url(database), neon.port) as pool,
    ):
        for _ in range(3):
            pool.execute("SELECT 1")
        assert neon.connections == 1


@pytest.mark.parametrize("closing", [closing_after, saying_so])
def test_a_connection_that_was_closed_costs_nobody_an_error(
    pool: Database, neon: NeonProxy, closing: Fault
) -> None:
    neon.fault = closing
    for number in range(1, 4):
        assert pool.execute("SELECT 1") == [[1]]
        assert neon.connections == number
    assert len(neon.requests) == 3


def test_a_connection_that_closes_as_the_request_arrives_costs_nobody_an_error(
    pool: Database, neon: NeonProxy
) -> None:
    pool.execute("SELECT 1")
    neon.faults = [hanging_up]
    assert pool.execute("SELECT 1") == [[1]]
    assert (neon.connections, len(neon.requests)) == (2, 3)


def test_what_is_said_unasked_is_nobodys_answer(pool: Database, neon: NeonProxy) -> None:
    """It waits in a record of TLS behind the first answer, where only its first part was read."""
    other = Answer.json(200, {"results": [_rows_of([]), _rows_of([["2"]])]})

    def twice(client: Any, answer: Callable[[], Answer]) -> None:
        true = answer()
        padding = 8192 - len(true._replace(headers=true.headers | {"X": ""}).wire())
        padded = true._replace(headers=true.headers | {"X": "x" * padding})
        client.sendall(padded.wire() + other.wire())

    neon.faults = [twice]
    for _ in range(3):
        assert pool.execute("SELECT 1") == [[1]]
    assert neon.connections == 2


def _rows_of(rows: list[list[str]]) -> dict[str, Any]:
    return {"fields": [{"name": "x", "dataTypeID": 23}], "rows": rows}


# What is asked and what is read.


def test_values_are_read_as_over_tcp(pool: Database, url: str) -> None:
    statement = Statement(
        "values",
        """SELECT :text AS text, :number::bigint, :nothing::text, :yes::bool, '0.5'::float8,
        '{"a": [1]}'::jsonb, '2026-01-02 03:04:05.678+00'::timestamptz, 'infinity'::timestamptz,
        '{a,NULL}'::text[], ''""",
    )
    given: dict[str, Any] = {"text": 'é"\\\n\U0001f600', "number": 2**53 + 1, "yes": True}
    (row,) = pool.execute(statement, nothing=None, **given)
    assert row == [
        given["text"],
        2**53 + 1,
        None,
        True,
        0.5,
        {"a": [1]},
        datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
        "infinity",
        ["a", None],
        "",
    ]
    with by_http(url, 1) as other, other.own_connection(time.monotonic() + 5, other.url) as tcp:
        assert tcp.execute(statement, nothing=None, **given) == [row]


def test_a_statement_without_rows_has_none(pool: Database) -> None:
    assert pool.execute("CREATE TABLE counted (number int)") == []
    assert pool.execute(f"{COUNT} RETURNING number") == [[1]]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_text_that_postgresql_cannot_have_is_a_fault_as_over_tcp(
    pool: Database, text: str
) -> None:
    with pytest.raises(StoreFault) as raised:
        pool.execute(Statement("text", "SELECT :text"), text=text)
    assert raised.value.sqlstate == "22021"
    assert pool.execute("SELECT 1") == [[1]]


def test_the_statements_settings_go_ahead_of_it_and_end_with_it(
    pool: Database, neon: NeonProxy, postgres: Server, database: str
) -> None:
    postgres.run(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable")
    shown = "SELECT current_setting(name) FROM (VALUES ('statement_timeout'), ('row_security'), "
    ((timeout,), (security,), (level,)) = pool.execute(f"{shown}('transaction_isolation')) v(name)")
    assert re.fullmatch(r"2s|1[5-9]\d\dms", timeout)
    assert (security, level) == ("off", "read committed")
    (first, _) = json.loads(neon.requests[0].body)["queries"]
    assert first["query"].startswith("SELECT set_config('statement_timeout'")


def test_a_search_path_that_does_not_arrive_is_refused(neon: NeonProxy, url: str) -> None:
    with by_http(f"{url}&options=-csearch_path=elsewhere", neon.port) as pool:
        assert "search_path=elsewhere has no effect" in _failure(pool, StoreRefused)


# Whom it trusts.


def test_a_certificate_of_another_authority_is_refused(
    postgres: Server, url: str, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path).issue("neon", ("localhost",))
    with NeonProxy(postgres, certificate=foreign) as neon, by_http(url, neon.port) as pool:
        assert "certificate is not valid for this host" in _failure(pool, StoreRefused)
        assert neon.requests == []


def test_a_certificate_of_another_host_is_refused(postgres: Server, url: str) -> None:
    other = postgres.authority.issue("other", ("api.us-east-2.aws.neon.tech",))
    with NeonProxy(postgres, certificate=other) as neon, by_http(url, neon.port) as pool:
        cause = _failure(pool, StoreRefused)
        assert "Hostname mismatch" in cause
        assert neon.requests == []


def test_a_server_without_tls_hears_nothing(url: str) -> None:
    def answer_in_clear_text(listener: socket.socket) -> bytes:
        connection, _ = listener.accept()
        with connection:
            heard = connection.recv(65536)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with suppress(ConnectionResetError):
                while more := connection.recv(65536):
                    heard += more
        return heard

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor(1) as thread,
        by_http(url, listener.getsockname()[1]) as pool,
    ):
        heard = thread.submit(answer_in_clear_text, listener)
        assert "TLS failed: " in _failure(pool, StoreRefused)
        assert b"POST" not in heard.result(10)


# What bounds it.


def test_what_takes_too_long_is_cancelled_by_postgresql(pool: Database) -> None:
    began = time.monotonic()
    assert "57014" in _failure(pool, StoreTimeout, "SELECT pg_sleep(30)")
    assert 1.5 < time.monotonic() - began < 4.5
    assert pool.execute("SELECT 1") == [[1]]


@pytest.mark.parametrize("fault", [trickling(0.2), silent(30)])
def test_an_answer_that_does_not_come_to_an_end_is_bounded_by_the_deadline(
    pool: Database, neon: NeonProxy, fault: Fault
) -> None:
    pool.execute("SELECT 1")  # From now on nobody has to wait for a start.
    neon.fault = fault
    began = time.monotonic()
    _failure(pool, StoreUnreachable)
    assert 2 < time.monotonic() - began < 4.5
    assert len(neon.requests) == 2, "not repeated"
    assert pool.counts().total == 0
    neon.hang_up()


def test_a_first_statement_waits_for_a_database_that_starts_as_long_as_connecting_may_take(
    pool: Database, neon: NeonProxy
) -> None:
    def waking_up(client: Any, answer: Callable[[], Answer]) -> None:
        time.sleep(SETTINGS.statement_timeout + 1)  # Longer than a statement itself may take.
        client.sendall(answer().wire())

    neon.faults = [waking_up]
    assert pool.execute("SELECT 1") == [[1]]
    assert len(neon.requests) == 1


def test_who_gives_up_ends_what_runs(pool: Database, postgres: Server, neon: NeonProxy) -> None:
    pool.execute("SELECT 1")
    with pytest.raises(StoreTimeout):
        pool.execute_within(0.5, "SELECT pg_sleep(47)")
    running = (
        "SELECT 1 FROM pg_stat_activity WHERE query ~ 'pg_sleep.47' AND pid <> pg_backend_pid()"
    )
    until(lambda: not postgres.run(running))


def test_an_answer_without_end_is_refused(pool: Database, neon: NeonProxy) -> None:
    sent = 0

    def flood(client: Any, _: object) -> None:
        nonlocal sent
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            client.sendall(b"x" * 65536)
            sent += 65536

    neon.fault = flood
    assert "longer than any expected answer" in _failure(pool, StoreRefused)
    assert sent < 48 * 1024 * 1024


# What its errors mean.


def test_an_error_of_a_statement_is_a_fault_and_the_connection_is_kept(
    pool: Database, neon: NeonProxy
) -> None:
    pool.execute("CREATE TABLE counted (number int CONSTRAINT small CHECK (number < 5) NOT NULL)")
    for statement, state, objects in (
        ("INSERT INTO counted VALUES (7)", "23514", {"table": "counted", "constraint": "small"}),
        ("INSERT INTO counted VALUES (NULL)", "23502", {"table": "counted", "column": "number"}),
        ("SELECT 1 / 0", "22012", {}),
        ("SELECT * FROM nowhere", "42P01", {}),
        ("SELECT 1; SELECT 2", "42601", {}),
    ):
        with pytest.raises(StoreFault) as raised:
            pool.execute(statement)
        assert raised.value.sqlstate == state
        assert objects.items() <= raised.value.objects.items()
        assert raised.value.objects["statement"] == "other"
    assert neon.connections == 1


def test_what_a_function_raises_is_named_and_its_text_withheld(pool: Database) -> None:
    pool.execute(
        "CREATE FUNCTION guard() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'ada@example.com' USING ERRCODE = '57P01'; END $$"
    )
    with pytest.raises(StoreFault) as raised:
        pool.execute("SELECT guard()")
    assert "ada@" not in str(raised.value)
    assert raised.value.objects["routine"] == "guard()"


def test_a_wrong_password_and_another_database_are_for_the_operator(
    postgres: Server, neon: NeonProxy, database: str
) -> None:
    with by_http(postgres.url(database, password="wrong"), neon.port) as pool:
        cause = _failure(pool, StoreRefused)
        assert "HTTP 400 password authentication failed" in cause
    with by_http(postgres.url("nowhere"), neon.port) as pool:
        assert '3D000 database "nowhere" does not exist' in _failure(pool, StoreRefused)
    assert len(neon.requests) == 2, "neither was repeated"


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (_said(413, message="too large"), StoreRefused, "no statement as long as this (HTTP 413)"),
        (_said(507, message="too large"), StoreRefused, "no answer as long as this (HTTP 507)"),
        (_said(404, msg="not found"), StoreRefused, "refused the request: HTTP 404 not found"),
        (_said(400, message="endpoint is disabled"), StoreRefused, "HTTP 400 endpoint is disabled"),
        (_said(400, message="", code=None), StoreRefused, "does not speak SQL over HTTP"),
        (
            answering(Answer(404, {"Content-Type": "text/html"}, b"<h1>ada@example.com</h1>")),
            StoreRefused,
            "HTTP 404: what answers there does not speak SQL over HTTP",
        ),
        (
            answering(Answer(301, {"Location": "https://elsewhere"}, b"")),
            StoreRefused,
            "HTTP 301: what answers there",
        ),
        (
            answering(Answer(200, {}, b"<h1>Please log in to the WiFi</h1>")),
            StoreRefused,
            "HTTP 200: what answers there",
        ),
        (_said(400, code="42501", message="permission denied", severity="ERROR"), StoreRefused, ""),
        (
            _said(400, code="53300", message="too many connections", severity="FATAL"),
            StoreUnreachable,
            "cannot connect: 53300 too many connections",
        ),
        (
            _said(400, code="28P01", message="password authentication failed", severity="FATAL"),
            StoreRefused,
            "28P01",
        ),
        (
            _said(400, code="53100", message="could not extend file", severity="ERROR"),
            StoreUnavailable,
            "53100",
        ),
        (_said(400, code="55P03", message="lock", severity="ERROR"), StoreUnavailable, "55P03"),
        (_said(400, code="08P01", message="cancelled", severity="ERROR"), StoreUnavailable, "08P"),
        (_said(400, code="57014", message="cancelled", severity="ERROR"), StoreTimeout, "57014"),
    ],
)
def test_each_answer_has_its_meaning(
    pool: Database, neon: NeonProxy, fault: Fault, kind: type[StoreUnavailable], said: str
) -> None:
    neon.fault = fault
    cause = _failure(pool, kind)
    assert said in cause
    assert "ada@" not in cause


def test_every_member_of_an_error_may_be_missing_or_null(pool: Database, neon: NeonProxy) -> None:
    neon.fault = _said(400, message=None, code="23505", severity=None)
    with pytest.raises(StoreFault) as raised:
        pool.execute("SELECT 1")
    assert raised.value.sqlstate == "23505"


# What is repeated.


@pytest.mark.parametrize(
    "fault",
    [
        STARTING,
        HTML,
        _said(503, msg="busy"),
        _said(429, message="Too many connections attempts"),
        _said(400, message="Failed to acquire permit to connect to the database."),
        _said(400, code="57P03", message="the database system is starting up", severity="FATAL"),
        _said(400, code="57P01", message="terminating connection", severity="FATAL"),
        _said(400, code="40001", message="could not serialize access", severity="ERROR"),
        hanging_up,
        cut,
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        raw(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"results": '),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
        _said(200, results="none"),
    ],
)
def test_what_happens_once_costs_nobody_an_error(
    pool: Database, neon: NeonProxy, fault: Fault
) -> None:
    neon.faults = [fault]
    assert pool.execute("SELECT 1") == [[1]]
    assert (len(neon.requests), neon.connections) == (2, 2)


def test_a_database_that_starts_is_waited_for_as_long_as_connecting_may_take(
    pool: Database, neon: NeonProxy
) -> None:
    neon.faults = [STARTING] * 4
    assert pool.execute("SELECT 1") == [[1]]
    neon.fault = STARTING
    began = time.monotonic()
    assert "Couldn't connect to compute node" in _failure(pool, StoreUnreachable)
    assert 1 < time.monotonic() - began < SETTINGS.connect_timeout + 0.5


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (_said(429), 3),
        (_said(503, msg="no healthy upstream"), 3),
        (_said(400, message="Too many connections to this endpoint"), 3),
        (_said(500, message="error communicating with the compute"), 2),
        (_said(500, message="something else"), 2),
        (HTML, 2),
        (_said(504), 2),
    ],
)
def test_what_says_that_nothing_has_run_is_asked_three_times_and_what_does_not_twice(
    pool: Database, neon: NeonProxy, fault: Fault, times: int
) -> None:
    neon.fault = fault
    assert re.search(r"HTTP (4|5)\d\d", _failure(pool, StoreUnreachable))
    # The breaker's prober asks on, but not so soon.
    assert len(neon.requests) == times
    assert pool.breaker.is_open


def test_a_statement_whose_answer_was_lost_is_repeated_once(
    pool: Database, neon: NeonProxy
) -> None:
    """As over TCP: all that goes through `Database.execute` must bear being run twice."""
    pool.execute("CREATE TABLE counted (number int)")
    neon.faults = [lost]
    pool.execute(COUNT)
    assert pool.execute("SELECT count(*) FROM counted") == [[2]]
    neon.faults = [lost] * 2
    _failure(pool, StoreUnreachable, COUNT)


@pytest.mark.parametrize("fault", [_said(400, message="refused"), _said(413), _said(507)])
def test_what_waiting_cannot_mend_is_not_repeated(
    pool: Database, neon: NeonProxy, fault: Fault
) -> None:
    neon.fault = fault
    _failure(pool, StoreRefused)
    assert len(neon.requests) == 1


# An outage.


@pytest.mark.parametrize("mode", [REFUSE, HANG_UP])
def test_where_nobody_answers_the_breaker_opens_and_a_probe_closes_it(
    url: str, neon: NeonProxy, mode: Any
) -> None:
    with Relay(neon.port) as relay, by_http(url, relay.port) as pool:
        pool.execute("SELECT 1")
        relay.mode = mode
        relay.cut()
        _failure(pool, StoreUnreachable)
        began = time.monotonic()
        assert "circuit breaker open" in _failure(pool, StoreUnreachable)
        assert time.monotonic() - began < 1
        relay.mode = type(mode)()
        until(lambda: not pool.breaker.is_open)
        assert pool.execute("SELECT 1") == [[1]]


def test_a_proxy_whose_database_is_away_keeps_the_breaker_open(
    pool: Database, neon: NeonProxy
) -> None:
    neon.fault = STARTING
    _failure(pool, StoreUnreachable)
    asked = len(neon.requests)
    until(lambda: len(neon.requests) >= asked + 3)
    assert pool.breaker.is_open
    neon.fault = None
    until(lambda: not pool.breaker.is_open)
    assert pool.execute("SELECT 1") == [[1]]


def test_statements_and_connections_are_measured(pool: Database) -> None:
    def counts() -> tuple[int, int]:
        statements = metrics.QUERIES.series().get(("measured by http",), metrics.Series())
        connects = metrics.CONNECTS.series().get(("ok",), metrics.Series())
        return statements.number, connects.number

    before = counts()
    statement = Statement("measured by http", "SELECT 1")
    for _ in range(3):
        pool.execute(statement)
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)


def test_threads_share_a_pool(pool: Database) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(20):
                value = number * 1000 + step
                statement = Statement("echo", "SELECT :value::int")
                assert pool.execute(statement, value=value) == [[value]]
        except BaseException as error:  # noqa: BLE001  # told by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
