"""The breaker: a database that is away costs one call its deadline, and nobody a stampede."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace

import pytest

from shared.database import breaker
from shared.database.breaker import OVERDUE, PROBE_TIMEOUT, Breaker
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused, StoreTimeout, StoreUnavailable, StoreUnreachable
from tests.support.emulator import running_emulator
from tests.support.postgres import Server
from tests.support.relay import FORWARD, REFUSE, Relay
from tests.support.waiting import until

SETTINGS = DatabaseSettings(timeout=3, connect_timeout=1, statement_timeout=1)
AWAY = 10**9


@pytest.fixture
def pool(postgres: Server, database: str, relay: Relay) -> Iterator[Database]:
    """Leases on connections through the relay."""
    url = DatabaseUrl.parse(postgres.url(database, port=relay.port))
    with closing(Database(url, SETTINGS)) as leases:
        yield leases


def test_it_opens_at_the_first_failure_and_closes_at_the_first_answer() -> None:
    answers = iter([StoreUnreachable(cause="still"), StoreUnreachable(cause="still"), None])
    opened = []

    def probe(_: float) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    tried = Breaker(probe, lambda: opened.append(True))
    tried.check()
    tried.trip()
    tried.trip()
    assert opened == [True]
    with pytest.raises(StoreUnreachable):
        tried.check()
    until(lambda: not tried.is_open, 5)
    tried.check()
    assert next(answers, "nothing left") == "nothing left"


@pytest.mark.parametrize("answer", [StoreRefused, StoreUnavailable, RuntimeError])
def test_any_other_answer_closes_it_for_the_calls_to_hear_it(answer: type[Exception]) -> None:
    def probe(_: float) -> None:
        raise answer

    tried = Breaker(probe, lambda: None)
    tried.trip()
    until(lambda: not tried.is_open, 5)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> tuple[Breaker, list[float], set[str]]:
    """An open breaker whose prober never gets its turn, the time, and what is away."""
    now, away = [1000.0], {"database"}

    def probe(deadline: float) -> None:
        assert deadline <= now[0] + breaker.PROBE_TIMEOUT
        now[0] += 0.5
        if away:
            raise StoreUnreachable

    tried = Breaker(probe, lambda: None)
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(breaker, "time", clock)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: None)
        tried.trip()
    return tried, now, away


def test_where_the_prober_is_overdue_one_call_asks_and_is_served_if_the_database_is_back(
    stopped: tuple[Breaker, list[float], set[str]],
) -> None:
    tried, now, away = stopped
    with pytest.raises(StoreUnreachable):
        tried.admit(math.inf)
    assert now == [1000]  # Nobody has asked.
    now[0] += 62
    with pytest.raises(StoreUnreachable):
        tried.admit(math.inf)
    assert now == [1062.5]
    with pytest.raises(StoreUnreachable):
        tried.admit(math.inf)
    assert now == [1062.5]  # One has asked just now.
    away.clear()
    now[0] += 62
    tried.admit(math.inf)
    assert not tried.is_open


def test_time_in_which_the_process_did_not_run_is_no_outage(
    stopped: tuple[Breaker, list[float], set[str]],
) -> None:
    tried, now, _ = stopped
    now[0] += 0.5
    assert tried.seconds == 0.5
    now[0] += 3600
    most = breaker.FIRST_PAUSE * 1.33 + breaker.OVERDUE
    assert tried.seconds == pytest.approx(most)
    with pytest.raises(StoreUnreachable):
        tried.admit(math.inf)
    assert tried.seconds == pytest.approx(most + 0.5)


def test_closing_it_by_hand_ends_the_prober(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(breaker, "PAUSE_MAX", 0.01)
    probes = []

    def probe(_: float) -> None:
        probes.append(True)
        raise StoreUnreachable

    tried = Breaker(probe, lambda: None)
    before = threading.active_count()
    for _ in range(5):
        tried.trip()
        tried.close()
    until(lambda: threading.active_count() <= before)
    count = len(probes)
    time.sleep(0.05)
    assert len(probes) == count


def test_where_no_thread_can_be_started_it_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    tried = Breaker(lambda _: None, lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        tried.trip()
    assert not tried.is_open
    tried.trip()
    until(lambda: not tried.is_open, 5)


def test_while_it_is_open_nobody_but_the_prober_dials(pool: Database, relay: Relay) -> None:
    pool.execute("SELECT 1")
    relay.hang_up = AWAY
    pool.close()
    with pytest.raises(StoreUnreachable):
        pool.execute("SELECT 1")
    relay.reset()
    deadline = time.monotonic() + 2
    refused = 0
    with ThreadPoolExecutor(8) as threads:
        while time.monotonic() < deadline:
            for failure in threads.map(lambda _: _failure(pool), range(100)):
                assert isinstance(failure, StoreUnreachable)
                refused += 1
    assert refused > 1000
    assert 1 <= relay.connections <= 8, "a handful a second, however many ask"


def _failure(pool: Database) -> Exception | None:
    try:
        pool.execute("SELECT 1")
    except StoreUnavailable as error:
        return error
    return None


def test_it_finds_recovery_by_itself(pool: Database, relay: Relay) -> None:
    relay.hang_up = AWAY
    assert isinstance(_failure(pool), StoreUnreachable)
    assert pool.breaker.since is not None
    relay.hang_up = 0
    until(lambda: not pool.breaker.is_open, 5)
    relay.reset()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: _failure(pool), range(50))) == {None}
    assert relay.connections <= SETTINGS.max_connections, "no stampede"


def test_a_silent_database_costs_the_waiting_no_deadline_of_their_own(
    postgres: Server, database: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = DatabaseUrl.parse(postgres.url(database, port=silent.getsockname()[1]))
        with closing(Database(url, SETTINGS._replace(max_connections=1))) as pool:
            started = time.monotonic()
            with ThreadPoolExecutor(8) as threads:
                failures = list(threads.map(lambda _: _failure(pool), range(8)))
            assert time.monotonic() - started < 2, "one connect deadline, not one after the other"
    assert {type(failure) for failure in failures} == {StoreUnreachable}


def test_the_log_tells_once_that_it_is_away_and_once_that_it_is_back(
    pool: Database, relay: Relay, capsys: pytest.CaptureFixture[str]
) -> None:
    relay.hang_up = AWAY
    for _ in range(5):
        assert isinstance(_failure(pool), StoreUnreachable)
    relay.hang_up = 0
    until(lambda: not pool.breaker.is_open, 5)
    away, back = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (away["severity"], away["message"]) == ("ERROR", "The database is unreachable")
    assert away["cause"].startswith("cannot connect: ")
    assert back["message"] == "The database is reachable again"
    assert back["seconds"] >= 0


def test_whoever_is_in_a_hurry_does_not_open_it(postgres: Server, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = DatabaseUrl.parse(postgres.url(database, port=silent.getsockname()[1]))
        with closing(Database(url, SETTINGS)) as pool:
            with pytest.raises(StoreUnreachable):
                pool.execute_within(0.2, "SELECT 1")
            assert not pool.breaker.is_open


def test_whoever_is_in_a_hurry_and_is_refused_at_once_does_open_it(
    pool: Database, relay: Relay
) -> None:
    relay.hang_up = AWAY
    with pytest.raises(StoreUnreachable):
        pool.execute_within(2, "SELECT 1")
    assert pool.breaker.is_open


def test_a_slow_statement_and_a_refusal_do_not_open_it(pool: Database) -> None:
    with pytest.raises(StoreTimeout):
        pool.execute("SELECT pg_sleep(30)")
    with pytest.raises(StoreRefused):
        pool.execute("SELECT nonsense FROM pg_class")
    assert not pool.breaker.is_open


def test_a_process_that_was_stopped_in_an_outage_serves_the_first_call_after_it(
    postgres: Server, database: str, relay: Relay
) -> None:
    login = {"email": "ada@example.com", "password": "correct horse battery staple"}
    with (
        running_emulator(
            DATABASE_URL=postgres.url(database, port=relay.port), ALERT_DATABASE_AWAY="4"
        ) as emulator,
        emulator.client() as client,
    ):
        assert client.post("/api/signup", json=login).status_code == 201
        relay.mode = REFUSE
        relay.cut()
        assert client.post("/api/login", json=login).status_code == 503
        os.killpg(emulator.process.pid, signal.SIGSTOP)
        relay.mode = FORWARD
        # Longer than one probe may take, and than makes an alert of an outage.
        time.sleep(PROBE_TIMEOUT + OVERDUE + 2)
        os.killpg(emulator.process.pid, signal.SIGCONT)
        assert client.post("/api/login", json=login).status_code == 200
        assert client.get("/api/livez").status_code == 200
        assert "database_away" not in emulator.output()
