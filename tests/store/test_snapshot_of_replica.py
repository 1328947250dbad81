"""The snapshot where there is a read replica: as old as what was copied, and never older."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.database.connection import Connection
from shared.errors import StoreUnreachable
from shared.settings import Settings
from shared.store import snapshot as snapshot_module
from shared.store.fallback import FallbackStore
from shared.store.snapshot import Snapshot
from tests.support import commands
from tests.support.emulator import environment
from tests.support.replicas import Pair, Said
from tests.support.stores import opened_store, snapshot_of
from tests.support.transfers import HASH

GRACE = 2.0
AGE = 3600.0
KEY = "ada@example.com"


@pytest.fixture
def variables(pair: Pair, tmp_path: Path) -> dict[str, str]:
    _add(pair, KEY)
    pair.catch_up()
    names = {"USERS_FILE": str(tmp_path / "users.json"), "FALLBACK": "readonly"}
    return pair.variables | names


def _add(pair: Pair, key: str) -> None:
    pair.run(f"INSERT INTO users (email, email_key, password) VALUES ('{key}', '{key}', '{HASH}')")


@pytest.fixture
def snapshot(variables: dict[str, str]) -> Iterator[Snapshot]:
    opened = snapshot_of(Settings.from_env(environment(**variables)))
    yield opened
    opened.close()


def test_it_is_the_replicas_and_as_old_as_what_was_copied(pair: Pair, snapshot: Snapshot) -> None:
    replica = pair.replica()
    with pair.paused():
        with replica.reading("test"):
            pass  # The primary was seen.
        time.sleep(0.5)
        committed = time.time()
        _add(pair, "bob@example.com")
        here, there = Said(pair.standby), Said(pair.primary)
        assert snapshot.take(replica.primary, time.time(), replica) == 1
        assert any(line.startswith("FETCH") for line in here.lines())
        assert there.lines() == []
    taken_at = snapshot.taken_at()
    assert taken_at is not None
    assert taken_at <= committed - 0.5
    now = time.time()
    assert snapshot.find(KEY, now, AGE)
    with pytest.raises(StoreUnreachable):
        snapshot.find(KEY, now, now - taken_at - 0.1)
    assert snapshot.find("bob@example.com", now, AGE) is None


def test_one_that_is_older_than_allowed_or_than_the_one_there_is_the_primarys(
    pair: Pair, snapshot: Snapshot
) -> None:
    replica = pair.replica()
    with pair.paused():
        _add(pair, "bob@example.com")
        now = time.time()
        assert snapshot.take(replica.primary, now, replica, max_age=1.0) == 2
        assert snapshot.taken_at() == now
        assert snapshot.take(replica.primary, now + 0.5, replica) == 2, "time goes on only"
        assert snapshot.taken_at() == now + 0.5
    assert [it.outcome for it in replica.told] == ["old", "old"]


def test_a_replica_that_is_away_or_fails_halfway_costs_no_snapshot(
    pair: Pair, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = pair.replica(timeout=5.0)
    with pair.standby.frozen():
        began = time.monotonic()
        now = time.time()
        assert snapshot.take(replica.primary, now, replica) == 1
        assert time.monotonic() - began < 1 + GRACE
    assert snapshot.taken_at() == now
    assert [it.outcome for it in replica.told] == ["away"]
    replica = pair.replica()
    monkeypatch.setattr(snapshot_module, "_FETCH_ROWS", 1)
    _add(pair, "bob@example.com")
    pair.catch_up()

    rows = snapshot_module._rows

    def cancelled(connection: Connection) -> Iterator[list[object]]:
        for row in rows(connection):
            yield row
            pair.standby.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
            )

    monkeypatch.setattr(snapshot_module, "_rows", cancelled)
    now = time.time()
    assert snapshot.take(replica.primary, now, replica) == 2
    assert snapshot.taken_at() == now


def test_an_instance_takes_it_of_the_replica(pair: Pair, variables: dict[str, str]) -> None:
    store = opened_store(**variables)
    assert isinstance(store, FallbackStore)
    try:
        here = Said(pair.standby)
        store.clean_up()
        assert any(line.startswith("FETCH") for line in here.lines())
        taken_at = store.database_status.fallback().snapshot
        assert taken_at is not None
        assert taken_at < time.time() - 0.9
    finally:
        store.close()


def test_who_has_changed_the_password_after_that_time_has_no_old_one(
    pair: Pair, variables: dict[str, str], snapshot: Snapshot
) -> None:
    """The instance that changed it takes a snapshot of a replica that has the old one still."""
    replica = pair.replica()
    with pair.paused():
        with replica.reading("test"):
            pass
        pair.run("UPDATE users SET epoch = epoch + 1")
        ((user_id,),) = pair.run("SELECT id::text FROM users")
        snapshot.invalidate(str(user_id))
        snapshot.take(replica.primary, time.time(), replica)
        assert snapshot.find(KEY, time.time(), AGE) is None
    assert replica.told == []
    time.sleep(1.2)
    pair.run("UPDATE users SET epoch = epoch + 1")
    pair.catch_up()
    replica._mark_asked = float("-inf")
    snapshot.take(replica.primary, time.time(), replica)
    assert replica.told == []
    assert snapshot.find(KEY, time.time(), AGE)


def test_the_command_says_as_of_when_and_takes_the_primary_on_request(
    variables: dict[str, str], pair: Pair
) -> None:
    with pair.paused():
        _add(pair, "bob@example.com")
        ended = commands.invoke(("snapshot",), environment(**variables))
        assert ended.code == 0
        assert "later changes may be missing" in ended.output
        assert " 1\n" in ended.output.split("users", 2)[2]
        ended = commands.invoke(("snapshot", "--primary", "--json"), environment(**variables))
        assert '"users": 2}' in ended.output
