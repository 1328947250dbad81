"""Leases: what is reused, what is replaced, and whom it makes wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import shared.database.pool
from shared.database.pool import Database
from shared.database.session import Session
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreBusy, StoreFault, StoreRefused, StoreUnavailable
from tests.support.emulator import running_emulator
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.waiting import until

SETTINGS = DatabaseSettings(timeout=10, connect_timeout=5, max_connections=2)
PID = "SELECT pg_backend_pid()"


@pytest.fixture
def pool(postgres: Server, database: str) -> Iterator[Database]:
    """A pool of two connections."""
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), SETTINGS)) as opened:
        yield opened


# What it reuses


def test_a_connection_is_reused_while_it_is_young(pool: Database) -> None:
    pids = {str(pool.execute(PID)) for _ in range(5)}
    assert len(pids) == 1
    assert (pool.counts().total, pool.counts().idle) == (1, 1)


def test_an_old_connection_is_replaced(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS._replace(max_idle=0.1))) as pool:
        first = pool.execute(PID)
        time.sleep(0.2)
        assert pool.execute(PID) != first
        assert pool.counts().total == 1


def test_connections_that_a_burst_left_over_are_closed_when_they_are_old(
    postgres: Server, database: str
) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    settings = SETTINGS._replace(max_idle=0.3, max_connections=4)
    with closing(Database(url, settings)) as pool:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: pool.execute("SELECT pg_sleep(0.1)"), range(4)))
        assert pool.counts().idle == 4
        for _ in range(10):
            pool.execute("SELECT 1")
            time.sleep(0.05)
        assert pool.counts().total == 1


def test_the_encoding_is_utf8_whatever_the_roles_default(postgres: Server, database: str) -> None:
    postgres.run(
        "CREATE ROLE latin LOGIN PASSWORD 'latin'; ALTER ROLE latin SET client_encoding = 'LATIN1'"
    )
    url = DatabaseUrl.parse(postgres.url(database, user="latin", password="latin"))
    with closing(Database(url, SETTINGS)) as pool:
        assert pool.execute("SELECT :text, char_length(:text)", text="Zoë 山") == [["Zoë 山", 5]]


def test_a_stale_connection_is_replaced_without_anyone_seeing_it(
    pool: Database, postgres: Server
) -> None:
    ((pid,),) = pool.execute(PID)
    postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
    ((other,),) = pool.execute(PID)
    assert other != pid
    assert (pool.counts().total, pool.counts().idle) == (1, 1)


def test_a_statement_whose_backend_is_killed_is_repeated_on_a_new_connection(
    pool: Database, postgres: Server
) -> None:
    pool.execute("CREATE TABLE once (pid integer)")

    def kill() -> None:
        query = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%slow%' AND state = 'active'"
        ((pid,),) = until(lambda: postgres.run(f"{query} AND pid <> pg_backend_pid()"))
        postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")

    killer = threading.Thread(target=kill)
    killer.start()
    rows = pool.execute("SELECT 'slow', pg_sleep(CASE WHEN :x = 'x' THEN 0.5 END)", x="x")
    killer.join()
    assert rows[0][0] == "slow"
    assert pool.counts().total == 1


def test_a_clean_error_keeps_the_connection(pool: Database) -> None:
    first = pool.execute(PID)
    with pytest.raises(StoreFault, match="42P01"):
        pool.execute("SELECT * FROM nowhere WHERE :x = ''", x="x")
    with pytest.raises(StoreFault, match="22P02") as caught:
        pool.execute("SELECT :number::integer", number="canary")
    assert "canary" not in str(caught.value)
    assert pool.execute(PID) == first


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\udfff\0"])
def test_a_text_that_postgres_cannot_take_never_shifts_the_answers(
    pool: Database, text: str
) -> None:
    for number in range(5):
        with pytest.raises(StoreFault):
            pool.execute("SELECT :text", text=text)
        assert pool.execute("SELECT :number", number=number) == [[str(number)]]


def test_an_overlong_statement_ends_in_time_and_its_connection_with_it(
    postgres: Server, database: str
) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS._replace(statement_timeout=0.3))) as pool:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="57014"):
            pool.execute("SELECT pg_sleep(:seconds::float)", seconds=30)
        assert time.monotonic() - started < 3
        assert pool.execute("SELECT :text", text="next") == [["next"]]


def test_a_statement_timeout_does_not_outlive_its_statement(pool: Database) -> None:
    assert pool.execute("SELECT current_setting('statement_timeout') <> '0'") == [[True]]
    with pool.direct_connection(time.monotonic() + 10) as connection:
        connection.execute("SELECT 1")
        assert connection.run_script("SHOW statement_timeout") == [["0"]]


# Whom it makes wait


def test_more_requests_than_leases_wait_for_their_turn(pool: Database) -> None:
    def ask(number: int) -> Any:
        return pool.execute("SELECT :number, pg_sleep(0.01)", number=number)[0][0]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(64))) == [str(number) for number in range(64)]
    counts = pool.counts()
    assert (counts.total, counts.idle, counts.waiting) == (2, 2, 0)


def test_who_waits_until_the_deadline_is_told_that_the_store_is_busy(pool: Database) -> None:
    with ThreadPoolExecutor(2) as threads:
        sleepers = [threads.submit(pool.execute, "SELECT pg_sleep(1)") for _ in range(2)]
        until(lambda: pool.counts().total == 2 and pool.counts().idle == 0)
        with pytest.raises(StoreBusy):
            pool.execute_within(0.1, "SELECT 1")
        for sleeper in sleepers:
            sleeper.result()
    assert pool.execute("SELECT 1") == [[1]]
    assert pool.counts().waiting == 0


def test_who_is_woken_with_too_little_time_wakes_the_next(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.database.pool, "MIN_SECONDS", 10)
    url = DatabaseUrl.parse(postgres.url(database))
    settings = DatabaseSettings(max_connections=1)
    with closing(Database(url, settings)) as pool, ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        holder = pool._take(began + 30, drop_idle=False)
        hurried = threads.submit(pool.execute_within, 9, "SELECT 1")
        until(lambda: pool.counts().waiting == 1)
        patient = threads.submit(pool.execute_within, 30, "SELECT 2")
        until(lambda: pool.counts().waiting == 2)
        pool._give_back(holder, keep=True)
        assert patient.result() == [[2]]
        assert time.monotonic() - began < 9, "nobody waited for a deadline"
        with pytest.raises(StoreBusy, match="too late"):
            hurried.result()


def test_no_wake_up_is_lost_to_someone_who_gives_up(pool: Database) -> None:
    # Those who give up do so just when connections come back.
    def impatient(_: int) -> str:
        try:
            pool.execute_within(0.04, "SELECT pg_sleep(0.02)")
        except StoreUnavailable:
            return "gave up"
        return "answered"

    def patient(_: int) -> float:
        started = time.monotonic()
        pool.execute_within(10, "SELECT 1")
        return time.monotonic() - started

    with ThreadPoolExecutor(16) as threads:
        noise = [threads.submit(impatient, number) for number in range(200)]
        waits = list(threads.map(patient, range(50)))
        outcomes = {future.result() for future in noise}
    assert "gave up" in outcomes
    assert max(waits) < 5


def test_a_busy_store_is_503_with_a_time_to_come_back(postgres: Server, database: str) -> None:
    with (
        running_emulator(
            DATABASE_URL=postgres.url(database),
            DATABASE_MAX_CONNECTIONS="1",
            DATABASE_TIMEOUT="0.5",
            THREADS="8",
            HASH_CONCURRENCY="2",
        ) as emulator,
        emulator.client() as client,
        postgres.connect(database) as holder,
    ):
        assert client.get("/api/health").json()["database"]["status"] == "connected"
        holder.run("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        login = {"email": "ada@example.com", "password": "correct horse"}

        def ask(_: int) -> tuple[int, str]:
            with emulator.client() as own:
                response = own.post("/api/login", json=login)
                return response.status_code, response.headers["Retry-After"]

        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(ask, range(4)))
        holder.run("ROLLBACK")
        assert {status for status, _ in answers} == {503}
        assert all(int(after) > 0 for _, after in answers)
        assert client.post("/api/login", json=login).status_code == 401


def test_no_connection_and_no_descriptor_leaks_in_any_outcome(
    postgres: Server, database: str, relay: Relay
) -> None:
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
    settings = SETTINGS._replace(statement_timeout=0.3)
    with closing(Database(url, settings)) as pool:
        pool.execute("SELECT 1")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                pool.execute("SELECT pg_sleep(30)")
            with pytest.raises(StoreFault):
                pool.execute("SELECT 1 / 0")
            relay.hang_up = 1
            assert pool.execute("SELECT 1") == [[1]]
        until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
        assert pool.counts().total == 1


def test_requests_to_a_silent_database_leave_no_descriptor_behind(
    postgres: Server, database: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = postgres.url(database, port=silent.getsockname()[1])
        settings = {"DATABASE_URL": url, "DATABASE_TIMEOUT": "0.2", "THREADS": "1"}
        with running_emulator(**settings) as emulator, emulator.client() as client:
            login = {"email": "ada@example.com", "password": "correct horse"}
            assert client.post("/api/login", json=login).status_code == 503
            before = emulator.descriptors()
            for _ in range(5):
                assert client.post("/api/login", json=login).status_code == 503
            # Now and then a socket is caught that is gone within a millisecond. One that waits for
            # the garbage collector stays, because between requests nothing allocates.
            until(lambda: emulator.descriptors() <= before)


@pytest.mark.parametrize("pause", [0, 60])
def test_a_failed_preparation_is_tried_again_after_a_pause_and_not_by_every_request(
    postgres: Server, database: str, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.database.pool, "PREPARE_PAUSE", pause)
    calls = []

    def prepare(_: Database, connection: Session, __: float) -> None:
        calls.append(connection.execute("SELECT 1"))
        if len(calls) == 1:
            raise StoreRefused(cause="not yet")

    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, SETTINGS, prepare=prepare)) as pool:
        with pytest.raises(StoreRefused, match="not yet"):
            pool.execute("SELECT 1")
        assert pool.counts().total == 0
        if pause:
            with pytest.raises(StoreRefused, match="not yet"):
                pool.execute("SELECT 1")
            assert len(calls) == 1
        else:
            assert pool.execute("SELECT 1") == [[1]]
            assert pool.execute("SELECT 1") == [[1]]
            assert len(calls) == 2
