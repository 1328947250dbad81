"""A real streaming replica: as of when it is read, and when the primary has to answer instead."""

from __future__ import annotations

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from shared.database import replica as replica_module
from shared.database.replica import MARGIN, START_SECONDS, PassedOver
from shared.database.statement import Statement
from shared.observe import metrics
from tests.support.certificates import Authority
from tests.support.postgres import PASSWORD, running_standby
from tests.support.relay import BLACK_HOLE, REFUSE, Relay
from tests.support.replicas import Pair, Said, WatchedReplica, running_pair

GRACE = 1.0
"""Seconds by which a busy machine may be late."""
AT_ONCE = 0.5
"""Seconds: who waits for the replica waits for a second at least."""
_COUNT = "SELECT count(*) FROM written"


@pytest.fixture
def pair(replicated: Pair) -> Pair:
    fresh = replicated.fresh()
    fresh.run("CREATE TABLE written (id int PRIMARY KEY)")
    fresh.run("GRANT SELECT ON written TO app")
    fresh.catch_up()
    return fresh


def _read(replica: WatchedReplica, sql: str = _COUNT) -> tuple[object, float]:
    with replica.reading("test") as (connection, as_of):
        ((found,),) = connection.execute(sql)
        return found, as_of


def _refusal(replica: WatchedReplica) -> PassedOver:
    with pytest.raises(PassedOver) as caught:
        _read(replica)
    return caught.value


# As of when


def test_whatever_was_committed_by_the_time_that_is_told_is_read(pair: Pair) -> None:
    """Writers note when a commit was answered; of those no one may be missing that is as old."""
    replica = pair.replica()
    answered: dict[int, float] = {}
    is_over = threading.Event()

    def write(first: int) -> None:
        with pair.primary.connect(pair.name) as connection:
            number = first
            while not is_over.is_set():
                connection.run(f"INSERT INTO written VALUES ({number})")
                answered[number] = time.time()
                number += 2

    writers = [threading.Thread(target=write, args=(first,)) for first in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        for step in range(12):
            if step == 4:
                pair.standby.run("SELECT pg_wal_replay_pause()")
            elif step == 8:
                pair.standby.run("SELECT pg_wal_replay_resume()")
            found, as_of = _read(replica, "SELECT coalesce(json_agg(id), '[]')::text FROM written")
            wanted = {number for number, at in answered.copy().items() if at <= as_of}
            assert wanted <= set(json.loads(str(found)))
            # Once so long that what was committed in a pause has become as old as the margin.
            time.sleep(MARGIN + 0.2 if step == 4 else 0.05)
        assert time.time() - _read(replica)[1] < MARGIN + GRACE, "and it is no idle promise"
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
        pair.standby.run("SELECT pg_wal_replay_resume()")


def test_while_nobody_writes_it_is_as_new_as_the_last_look_at_the_primary(pair: Pair) -> None:
    with running_standby(pair.primary) as idle:
        sight = idle.run("SELECT pg_last_xact_replay_timestamp()")
        assert sight == [[None]], "it has replayed no commit since it was started"
        began = time.time()
        replica = pair.replica(idle.url(pair.name))
        _, as_of = _read(replica)
        assert began - MARGIN <= as_of <= time.time() - MARGIN
        mark = replica._mark
        assert abs(_read(replica)[1] - as_of) < GRACE
        assert replica._mark is mark, "the primary was not asked again"
        with pytest.raises(PassedOver) as caught, replica.reading("test", not_before=time.time()):
            pass
        assert caught.value.outcome == "old"
        replica._mark_asked = -math.inf
        time.sleep(GRACE / 2)  # Time is the subject: a later look at the primary tells a later one.
        assert _read(replica)[1] > as_of


def test_with_a_paused_replay_time_stands_still_and_who_needs_it_newer_is_told(pair: Pair) -> None:
    pair.run("INSERT INTO written VALUES (1)")
    replica = pair.replica()
    with pair.paused():
        committed = time.time()
        pair.run("INSERT INTO written VALUES (2)")
        for _ in range(2):
            found, as_of = _read(replica)
            assert found == 1
            assert as_of <= committed
            replica._mark_asked = -math.inf
            time.sleep(0.1)
        with (
            pytest.raises(PassedOver) as caught,
            replica.reading("test", not_before=committed),
        ):
            pass
        assert caught.value.outcome == "old"
        assert caught.value.cause.endswith("s behind, which is too old for this")
    assert _read(replica)[0] == 2, "an old replica is not passed over the next time"


# When it is away


def test_one_that_was_killed_is_passed_over_at_once_and_found_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = pair.replica()
    _read(replica)
    outages = metrics.OUTAGES.total
    with pair.standby.killed():
        began = time.monotonic()
        assert _refusal(replica).outcome == "away"
        assert time.monotonic() - began < START_SECONDS + GRACE
        began = time.monotonic()
        assert _refusal(replica).outcome == "paused"
        assert time.monotonic() - began < AT_ONCE
    assert _refusal(replica).outcome == "paused"
    assert [it.outcome for it in replica.told] == ["away"], "it is told once"
    monkeypatch.setattr(replica_module, "PAUSE", 0.0)
    replica._paused_until = -math.inf
    assert _read(replica)[0] == 0
    assert metrics.OUTAGES.total == outages
    assert not replica.primary.breaker.is_open


def test_a_frozen_one_costs_a_fifth_of_the_time_and_one_read_only(pair: Pair) -> None:
    replica = pair.replica(timeout=5.0)
    _read(replica)
    with pair.standby.frozen():
        began = time.monotonic()
        assert _refusal(replica).outcome == "away"
        assert 0.9 < time.monotonic() - began < 1 + GRACE
        began = time.monotonic()
        assert [_refusal(replica).outcome for _ in range(10)] == ["paused"] * 10
        assert time.monotonic() - began < AT_ONCE


@pytest.mark.long
def test_one_that_falls_silent_while_it_is_read_leaves_the_primary_half_of_the_time(
    pair: Pair,
) -> None:
    with Relay(pair.standby.port) as relay:
        replica = pair.replica(pair.standby.url(pair.name, port=relay.port), timeout=3.0)
        began = time.monotonic()
        with pytest.raises(PassedOver) as caught:
            _silenced(replica, relay)
    assert caught.value.outcome == "away"
    assert 1.3 < time.monotonic() - began < 1.5 + GRACE


def _silenced(replica: WatchedReplica, relay: Relay) -> None:
    with replica.reading("test") as (connection, _):
        relay.mode = BLACK_HOLE
        connection.execute("SELECT 1")


@pytest.mark.long
def test_after_the_pause_one_read_tries_it_and_the_others_do_not_wait(pair: Pair) -> None:
    replica = pair.replica(timeout=5.0)
    _read(replica)
    with pair.standby.frozen():
        _refusal(replica)
        replica._paused_until = -math.inf
        outcomes: list[str] = []
        trying = threading.Thread(target=lambda: outcomes.append(_refusal(replica).outcome))
        trying.start()
        time.sleep(0.2)
        began = time.monotonic()
        assert _refusal(replica).outcome == "paused"
        assert time.monotonic() - began < AT_ONCE
        trying.join()
    assert outcomes == ["away"]


def test_more_reads_than_it_may_have_connections_are_the_primarys(pair: Pair) -> None:
    replica = pair.replica(max_connections=1, timeout=2.5)
    with replica.reading("test"):
        assert _refusal(replica).outcome == "busy"
    assert _read(replica)[0] == 0


# When it is not what it is taken for


def test_a_promoted_one_is_no_replica_any_more(pair: Pair) -> None:
    with running_standby(pair.primary) as promoted:
        replica = pair.replica(promoted.url(pair.name))
        assert _read(replica)[0] == 0
        promoted.run("SELECT pg_promote()")
        refusal = _refusal(replica)
        assert refusal.outcome == "unfit"
        assert "it is no standby: it takes writes of its own" in refusal.cause


@pytest.mark.long
def test_what_follows_a_promoted_one_is_no_replica_of_the_old_primary(pair: Pair) -> None:
    """Where DATABASE_URL names the promoted one, it is the other way round."""
    with running_standby(pair.primary) as promoted:
        promoted.run("SELECT pg_promote()")
        promoted.run("INSERT INTO written VALUES (99)", pair.name)
        with running_standby(promoted) as follower:
            refusal = _refusal(pair.replica(follower.url(pair.name)))
            assert refusal.outcome == "unfit"
            assert "it is on timeline 2, and the server of DATABASE_URL on 1" in refusal.cause
            after_failover = Pair(promoted, follower, pair.name)
            assert _read(after_failover.replica())[0] == 1
        refusal = _refusal(Pair(promoted, pair.standby, pair.name).replica())
        assert "it is on timeline 1, and the server of DATABASE_URL on 2" in refusal.cause


def test_another_database_or_table_is_told_by_name(pair: Pair) -> None:
    refusal = _refusal(pair.replica(pair.standby.url("postgres")))
    assert refusal.cause == "it is another database of the server than that of DATABASE_URL"
    url = pair.standby.url(pair.name, options="-csearch_path%3Dpg_catalog")
    refusal = _refusal(pair.replica(url))
    assert refusal.cause.startswith("its table users is not that of DATABASE_URL")
    refusal = _refusal(pair.replica(pair.primary.url(pair.name)))
    assert refusal.cause.startswith("it is no standby")


@pytest.mark.long
def test_a_replica_of_another_server_is_told(pair: Pair) -> None:
    with running_pair(system=1) as other:
        refusal = _refusal(pair.replica(other.standby.url(other.name)))
        assert refusal.outcome == "unfit"
        assert refusal.cause == "it is a replica of another server than that of DATABASE_URL"


def test_a_login_that_is_refused_is_told_without_its_password(pair: Pair) -> None:
    for url in (pair.standby.url(pair.name, password="canary"), pair.standby.url("missing")):
        refusal = _refusal(pair.replica(url))
        assert refusal.outcome == "unfit"
        assert "canary" not in refusal.cause
        assert PASSWORD not in refusal.cause


def test_its_certificate_is_verified(pair: Pair, tmp_path: object) -> None:
    other = Authority(tmp_path)  # type: ignore[arg-type]
    url = pair.standby.url(pair.name, sslrootcert=str(other.certificate))
    refusal = _refusal(pair.replica(url))
    assert "certificate" in refusal.cause


def test_a_table_that_is_missing_or_forbidden_is_a_reason_to_ask_the_primary(pair: Pair) -> None:
    for sql in ("SELECT * FROM missing", "SELECT missing FROM users", "SELECT * FROM pg_authid"):
        replica = pair.replica()
        with pytest.raises(PassedOver) as caught:
            _read(replica, sql)
        assert caught.value.outcome == "unfit", sql


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_here_that_differs_from_the_servers_is_the_one_that_ages_are_told_by(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic)
    monkeypatch.setattr(replica_module, "time", clock)
    pair.run("INSERT INTO written VALUES (1)")
    replica = pair.replica()
    pair.catch_up()
    with pair.paused():
        began = clock.time()
        pair.run("INSERT INTO written VALUES (2)")
        replica._mark_asked = -math.inf
        found, as_of = _read(replica)
        assert found == 1
        assert began - MARGIN - 2 * GRACE <= as_of <= began


@pytest.mark.parametrize("answer", ["nan", "inf", "-inf", "no number", None])
def test_an_answer_that_is_none_of_postgresqls_is_a_reason_to_ask_the_primary(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    replica = pair.replica()
    _read(replica)
    said = f"'{answer}'" if answer else "NULL, 1"
    sql = replica_module._SIGHT.sql.replace(
        "extract(epoch FROM pg_last_xact_replay_timestamp())::text", said
    )
    assert said in sql
    monkeypatch.setattr(replica_module, "_SIGHT", Statement("replica", sql, is_prepared=False))
    refusal = _refusal(replica)
    assert (refusal.outcome, refusal.cause) == ("unfit", "its answer is none of PostgreSQL's")


def test_what_is_read_and_makes_no_sense_is_a_reason_to_ask_the_primary(pair: Pair) -> None:
    replica = pair.replica()
    with pytest.raises(PassedOver) as caught, replica.reading("test") as (connection, _):
        ((_,),) = connection.execute("SELECT 1 WHERE false")
    assert caught.value.outcome == "unfit"
    assert _refusal(replica).outcome == "paused"


def test_a_read_that_takes_too_long_leaves_the_primary_the_time_for_a_statement(
    pair: Pair,
) -> None:
    replica = pair.replica(timeout=4.0, statement_timeout=1.0)
    began = time.monotonic()
    with pytest.raises(PassedOver) as caught:
        _read(replica, "SELECT pg_sleep(10)")
    assert caught.value.outcome == "slow"
    assert 4.0 - (time.monotonic() - began) > 1.0


def test_first_reads_at_once_ask_the_primary_once(pair: Pair) -> None:
    replica = pair.replica()
    said = Said(pair.primary)
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(_read, replica) for _ in range(3)]
        assert {answer.result()[0] for answer in found} == {0}
    assert len(said.lines()) == 1


def test_a_primary_that_may_not_be_asked_is_told_with_its_reason(pair: Pair) -> None:
    refused = pair.primary.url(pair.name, password="canary")
    refusal = _refusal(pair.replica(primary_url=refused))
    assert refusal.outcome == "unverified"
    assert "28P01" in refusal.cause
    assert "canary" not in refusal.cause


# When the primary is away


def test_a_replica_that_is_known_goes_on_without_its_primary_and_an_unknown_one_does_not(
    pair: Pair,
) -> None:
    with Relay(pair.primary.port) as relay:
        url = pair.primary.url(pair.name, port=relay.port)
        known, unknown = pair.replica(primary_url=url), pair.replica(primary_url=url)
        _, before = _read(known)
        relay.mode = REFUSE
        known._mark_asked = -math.inf
        _, as_of = _read(known)
        assert as_of < before + GRACE
        assert _refusal(unknown).outcome == "unverified"
        began = time.monotonic()
        assert _refusal(unknown).outcome == "unverified"
        assert time.monotonic() - began < AT_ONCE
        assert not known.primary.breaker.is_open
