"""The snapshot as it is taken: from Postgres, by an instance or by the command."""

from __future__ import annotations

import errno
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from shared import files
from shared.config import Settings
from shared.errors import StoreAway, StoreBusy, StoreUnavailable
from shared.store.snapshot import Snapshot
from tests.support import commands
from tests.support.emulator import SECRET, environment
from tests.support.postgres import Server
from tests.support.stores import NOW
from tests.support.transfers import HASH, Target, user

AGE = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the snapshot is."""
    return tmp_path / "users.json.snapshot"


def _snapshot(path: Path) -> Snapshot:
    return Snapshot(path, [SECRET], "host/name")


def _write(path: Path) -> Snapshot:
    snapshot = _snapshot(path)
    key = "ada@example.com"
    snapshot.write([[key, "1", key, None, "local", 0, HASH]], taken_at=NOW, users=1)
    return snapshot


# What it holds


def test_everybody_who_could_log_in_is_found_and_nobody_else(target: Target, path: Path) -> None:
    users = [
        user(1, name="Ada", epoch=3),
        user(2, email="Bob@Example.com"),
        user(3, email="jörg@exämple.de", name="\x01 Jörg 🙂"),
        user(4, email="zoë🙂@example.com"),
        user(5, password=..., provider="google"),
        user(6, email="a" * 64 + "@" + "b" * 63 + ".example.com", name="🙂" * 255),
    ]
    target.apply(users)
    target.run("INSERT INTO users (email) VALUES ('unkeyed@example.com')")
    target.run("UPDATE users SET email_key = NULL WHERE email = 'unkeyed@example.com'")
    snapshot = _snapshot(path)
    assert snapshot.take(target.database, NOW) == len(users)
    for row, (user_id, key) in zip(
        users,
        target.run("SELECT id::text, email_key FROM users WHERE email_key IS NOT NULL ORDER BY id"),
        strict=True,
    ):
        found = snapshot.find(key, NOW, AGE)
        assert found is not None
        assert (found.user.id, found.user.email) == (user_id, row["email"])
        assert (found.user.name, found.user.epoch) == (row.get("name"), row.get("epoch", 0))
        assert found.password_hash == row.get("password")
        assert found.user.is_degraded
    for key in ("unkeyed@example.com", "nobody@example.com", "", "🙂", "\x00", "zzz"):
        assert snapshot.find(key, NOW, AGE) is None


# What may go wrong


def test_a_disk_that_is_full_leaves_the_old_file(target: Target, path: Path) -> None:
    _write(path)
    before = path.read_bytes()
    target.apply([user(number) for number in range(50)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreUnavailable, match="cannot be written: File too large"):
            _snapshot(path).take(target.database, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_one_process_takes_it_at_a_time(target: Target, path: Path) -> None:
    with files.locked(path, 0), pytest.raises(StoreBusy, match="another process"):
        _snapshot(path).take(target.database, NOW)


def test_a_database_that_goes_away_leaves_the_old_file(
    postgres: Server, target: Target, path: Path
) -> None:
    _write(path)
    before = path.read_bytes()
    gone = Target(postgres, target.name, port=1)
    with pytest.raises(StoreAway):
        _snapshot(path).take(gone.database, NOW)
    assert path.read_bytes() == before


def test_a_disk_that_times_out_is_not_taken_for_another_process(
    target: Target, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreUnavailable, match="cannot be written: Connection timed out") as raised:
        _snapshot(path).take(target.database, NOW)
    assert not isinstance(raised.value, StoreBusy)


def test_who_takes_one_keeps_nothing_of_the_old(target: Target, path: Path) -> None:
    snapshot = _write(path)
    assert snapshot.find("ada@example.com", NOW, AGE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for seconds in (0, 1):
        snapshot.void(f"before {seconds}", NOW)
    snapshot.void("after", NOW + 2)
    snapshot.take(target.database, NOW + 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert set(snapshot._void) == {"after"}


# The command


def test_the_command_takes_one_that_the_functions_believe(target: Target, path: Path) -> None:
    target.apply([user(1)])
    ended = commands.run(target.server.url(target.name), path.with_suffix(""), "snapshot")
    assert ended.code == 0
    assert str(path) in ended.output
    variables = environment(
        DATABASE_URL=target.server.url(target.name), USERS_FILE=str(path.with_suffix(""))
    )
    snapshot = Snapshot.of(Settings.from_env(variables))
    taken_at = snapshot.taken_at()
    assert taken_at is not None
    assert snapshot.find("user1@example.com", taken_at, AGE)
    snapshot.close()


def test_the_command_tells_in_json_and_fails_in_a_sentence(target: Target, path: Path) -> None:
    users_file = path.with_suffix("")
    url = target.server.url(target.name)
    ended = commands.run(url, users_file, "snapshot", "--json")
    assert json.loads(ended.output) == {"event": "result", "path": str(path), "users": 0}
    with files.locked(path, 0):
        ended = commands.run(url, users_file, "snapshot")
    assert (ended.code, ended.output) == (1, "")
    assert "another process is taking the snapshot" in ended.error


def test_a_snapshot_belongs_to_the_database_behind_the_pooler(path: Path) -> None:
    settings = Settings.from_env(
        environment(DATABASE_URL="postgresql://u:p@ep-x-1.eu.aws.neon.tech/d", USERS_FILE=str(path))
    )
    assert settings.database_url
    pooled = replace(settings.database_url, host="ep-x-1-pooler.eu.aws.neon.tech")
    one, other = Snapshot.of(settings), Snapshot.of(replace(settings, database_url=pooled))
    assert one._keys == other._keys
