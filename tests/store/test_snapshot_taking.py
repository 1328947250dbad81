"""The snapshot as it is taken: from Postgres, by an instance or by the command."""

from __future__ import annotations

import errno
import json
import os
import resource
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shared import files
from shared.database.connection import Connection
from shared.errors import StoreBusy, StoreUnavailable, StoreUnreachable
from shared.model.emails import email_key
from shared.settings import Settings
from shared.store import snapshot as snapshot_module
from shared.store.snapshot import Snapshot
from shared.transfer.actions import transfer
from shared.transfer.command import FAILED, USAGE
from tests.support import commands
from tests.support.emulator import SECRET, environment
from tests.support.postgres import Server
from tests.support.relay import FORWARD, Mode, Relay
from tests.support.stores import NOW, snapshot_of
from tests.support.transfers import HASH, Target, user

AGE = HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the snapshot is."""
    return tmp_path / "users.json.snapshot"


def _snapshot(path: Path) -> Snapshot:
    return Snapshot(path, [SECRET], "host/name")


def _write(path: Path) -> Snapshot:
    snapshot = _snapshot(path)
    key = "ada@example.com"
    snapshot.write([[key, "1", key, None, "local", 0, None, HASH]], taken_at=NOW)
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
    for key in ("unkeyed@example.com", "nobody@example.com", "", "🙂", "\x00", "zzz"):
        assert snapshot.find(key, NOW, AGE) is None


def test_keys_are_found_however_they_are_spelled(target: Target, path: Path) -> None:
    # Among them the ends of UTF-8's lengths, UTF-16's own order, and what other line breaks are.
    odd = "\x01\x7f\x80\x85\u07ff\u0800\u2028\ud7ff\ue000\uffff\U00010000\U0010ffff"
    odd += "\"'\\{[,\t \u0300e\u0301éßİ\u0131\u03c3\u03c2Å\u212bﬃ\u200d🙂"
    keys = {*odd, *(a + b for a in odd[::3] for b in odd[::2]), "A", "a", "Z", "z", "-", "_", ""}
    with target.server.connect(target.name) as connection:
        for key in keys:
            connection.run(
                "INSERT INTO users (email, email_key) VALUES (:email, :key)",
                email=str(uuid.uuid4()), key=key,
            )  # fmt: skip
    snapshot = _snapshot(path)
    assert snapshot.take(target.database, NOW) == len(keys)
    lines = path.read_bytes().split(b"\n")[1:-2]
    assert [json.loads(line)[0] for line in lines] == sorted(keys)
    stored = dict(target.run("SELECT email_key, id::text FROM users"))
    for key in keys:
        found = snapshot.find(key, NOW, AGE)
        assert found is not None
        assert found.user.id == stored[key]


@pytest.mark.parametrize("character", ["\x01", "\U0001d160", "🙂", '"', "\u0344", "İ"])
def test_the_longest_columns_fit_in_a_line(target: Target, path: Path, character: str) -> None:
    with target.server.connect(target.name) as connection:
        connection.run(
            "INSERT INTO users (email, email_key, name, password, provider, epoch)"
            " VALUES (:long, :key, :long, :long, :short, 2147483647)",
            long=character * 255, key=email_key(character * 255), short=character * 50,
        )  # fmt: skip
    target.run(
        "INSERT INTO users (email, email_key)"
        " VALUES ('\t', ''), ('a@example.com', 'a@example.com'), ('\U0010ffff', '\U0010ffff')"
    )
    snapshot = _snapshot(path)
    assert snapshot.take(target.database, NOW) == 4
    for email, key in target.run("SELECT email, email_key FROM users"):
        found = snapshot.find(key, NOW, AGE)
        assert found is not None
        assert found.user.email == email


def test_taking_it_takes_no_memory(target: Target, path: Path) -> None:
    peaks = []
    for count in (3_000, 12_000):
        target.run("TRUNCATE users CASCADE")
        target.run(
            "INSERT INTO users (email, password) SELECT g || '@example.com', repeat('x', 60)"
            f" FROM generate_series(1, {count}) g"
        )
        tracemalloc.start()
        assert _snapshot(path).take(target.database, NOW) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_it_is_of_one_moment(target: Target, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.apply([user(1), user(2)])
    real = snapshot_module._rows

    def rows(connection: Connection) -> Iterator[list[Any]]:
        found = real(connection)
        yield next(found)
        target.run("UPDATE users SET password = 'changed'")
        target.run("DELETE FROM users WHERE email = 'user2@example.com'")
        yield from found

    monkeypatch.setattr(snapshot_module, "_rows", rows)
    monkeypatch.setattr(snapshot_module, "_FETCH_ROWS", 1)
    snapshot = _snapshot(path)
    assert snapshot.take(target.database, NOW) == 2
    for number in (1, 2):
        found = snapshot.find(f"user{number}@example.com", NOW, AGE)
        assert found is not None
        assert found.password_hash == HASH


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
    with pytest.raises(StoreUnavailable, match="no snapshot"):
        _snapshot(path).take(gone.database, NOW)
    assert path.read_bytes() == before


def test_a_connection_that_is_cut_on_the_way_leaves_the_old_file(
    target: Target, path: Path, relay: Relay
) -> None:
    _write(path)
    before = path.read_bytes()
    target.run(
        "INSERT INTO users (email, name) SELECT g || '@example.com', repeat('x', 200)"
        " FROM generate_series(1, 5000) g"
    )
    through = Target(target.server, target.name, port=relay.port)
    for amount in (10_000, 500_000, 1_200_000):
        relay.mode = Mode(answer_bytes=amount)
        with pytest.raises(StoreUnavailable, match="no snapshot"):
            _snapshot(path).take(through.database, NOW)
        assert path.read_bytes() == before
    relay.mode = FORWARD
    assert _snapshot(path).take(through.database, NOW) == 5000
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
def test_only_a_regular_file_is_replaced(target: Target, path: Path, kind: str) -> None:
    other = path.with_name("other")
    if kind == "symlink":
        other.write_text("of somebody else")
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(StoreUnavailable, match=r"cannot be written: .* is not a regular file"):
        _snapshot(path).take(target.database, NOW)
    assert kind != "symlink" or other.read_text() == "of somebody else"


def test_a_disk_that_times_out_is_not_taken_for_another_process(
    target: Target, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreUnavailable, match="cannot be written: Connection timed out") as raised:
        _snapshot(path).take(target.database, NOW)
    assert not isinstance(raised.value, StoreBusy)


def test_who_takes_one_keeps_nothing_of_the_old(
    target: Target, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _write(path)
    assert snapshot.find("ada@example.com", NOW, AGE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(2):
        snapshot.invalidate(f"before {number}")
    write = snapshot.write

    def write_while_another_changes(rows: Iterable[Sequence[Any]], *, taken_at: float) -> int:
        snapshot.invalidate("meanwhile")
        return write(rows, taken_at=taken_at)

    monkeypatch.setattr(snapshot, "write", write_while_another_changes)
    snapshot.take(target.database, NOW + 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    assert set(snapshot._invalid) == {"meanwhile"}


# When the clock is set


@pytest.mark.parametrize("wrong_by", [6 * HOUR, 100 * DAY])
def test_who_took_one_when_the_clock_ran_ahead_believes_it_for_its_time_and_no_longer(
    target: Target, path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    target.apply([user(1)])
    snapshot = _snapshot(path)
    snapshot.take(target.database, NOW + wrong_by)
    real = time.monotonic
    for moment in (NOW + wrong_by, NOW):
        assert snapshot.find("user1@example.com", moment, AGE)
    monkeypatch.setattr(time, "monotonic", lambda: real() + AGE)
    for moment in (NOW + wrong_by, NOW, NOW - AGE):
        with pytest.raises(StoreUnreachable, match="age"):
            snapshot.find("user1@example.com", moment, AGE)


def test_one_of_the_future_is_believed_by_nobody_but_the_process_that_took_it(
    target: Target, path: Path
) -> None:
    target.apply([user(1)])
    snapshot = _snapshot(path)
    snapshot.take(target.database, NOW + 6 * HOUR)
    assert snapshot.find("user1@example.com", NOW, AGE)
    with pytest.raises(StoreUnreachable, match="age"):
        _snapshot(path).find("user1@example.com", NOW, AGE)


def test_the_clock_cannot_make_a_change_older_than_the_snapshot_before_it(
    target: Target, path: Path
) -> None:
    target.apply([user(1)])
    snapshot = _snapshot(path)
    snapshot.take(target.database, NOW + 6 * HOUR)
    found = snapshot.find("user1@example.com", NOW + 6 * HOUR, AGE)
    assert found is not None
    snapshot.invalidate(found.user.id)
    assert snapshot.find("user1@example.com", NOW, AGE) is None
    snapshot.take(target.database, NOW)
    assert snapshot.find("user1@example.com", NOW, AGE)


# The command


def test_the_command_takes_one_that_the_functions_believe(target: Target, path: Path) -> None:
    target.apply([user(1)])
    ended = commands.run(target.server.url(target.name), path.with_suffix(""), "snapshot")
    assert ended.code == 0
    assert str(path) in ended.output
    variables = environment(
        DATABASE_URL=target.server.url(target.name), USERS_FILE=str(path.with_suffix(""))
    )
    snapshot = snapshot_of(Settings.from_env(variables))
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


def test_of_two_processes_one_takes_it_and_the_other_says_so(target: Target, path: Path) -> None:
    url, users_file = target.server.url(target.name), path.with_suffix("")
    with target.server.connect(target.name) as connection:
        connection.run("BEGIN")
        connection.run("LOCK TABLE users")
        first = commands.Command(url, users_file, "snapshot")
        while not target.run("SELECT 1 FROM pg_locks WHERE NOT granted"):
            assert first.process.poll() is None
            time.sleep(0.02)
        second = commands.run(url, users_file, "snapshot")
        connection.run("COMMIT")
    assert (second.code, second.output) == (1, "")
    assert "another process is taking the snapshot" in second.error
    assert first.wait().code == 0


def test_the_command_says_in_a_sentence_why_it_cannot(
    postgres: Server, target: Target, make_database: Callable[..., str], tmp_path: Path
) -> None:
    url = postgres.url(target.name)
    (tmp_path / "folder.snapshot").mkdir()
    (tmp_path / "file").touch()
    for settings, code, sentence in (
        ({"DATABASE_URL": ""}, USAGE, "DATABASE_URL is missing"),
        (
            {"SESSION_SECRET": "", "ENVIRONMENT": "production", "BCRYPT_ROUNDS": "10"},
            USAGE,
            "SESSION_SECRET is missing: set the functions' own, or they reject the snapshot.",
        ),
        ({"DATABASE_URL": postgres.url("postgres", port=1)}, FAILED, "cannot connect"),
        ({"DATABASE_URL": postgres.url("missing")}, FAILED, "3D000"),
        ({"DATABASE_URL": postgres.url(make_database(migrated=False))}, FAILED, "42P01"),
        ({"USERS_FILE": f"{tmp_path}/folder"}, FAILED, "folder.snapshot is not a regular file"),
        ({"USERS_FILE": f"{tmp_path}/file/x"}, FAILED, "File exists"),
    ):
        users_file = {"USERS_FILE": f"{tmp_path}/users.json"}
        variables = environment(**{"DATABASE_URL": url} | users_file | settings)
        ended = CliRunner().invoke(transfer, ["snapshot"], env=variables)
        assert (ended.exit_code, ended.stdout) == (code, ""), sentence
        assert sentence in ended.stderr
        if code == FAILED:
            assert "Nothing was changed." in ended.stderr
    assert not (tmp_path / "users.json.snapshot").exists()


def test_in_development_the_command_signs_with_the_secret_that_the_server_keeps(
    target: Target, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.settings.DATA", tmp_path / ".data")
    variables = environment(
        DATABASE_URL=target.server.url(target.name), USERS_FILE=str(path.with_suffix("")),
        ENVIRONMENT="development", SESSION_SECRET="",
    )  # fmt: skip
    target.run("INSERT INTO users (email) VALUES ('ada@example.com')")
    assert commands.invoke(("snapshot",), variables).code == 0
    server = snapshot_of(Settings.from_env(variables).complete())
    assert server.find("ada@example.com", time.time(), AGE)
    server.close()


def test_a_snapshot_belongs_to_the_database_behind_the_pooler(path: Path) -> None:
    settings = Settings.from_env(
        environment(DATABASE_URL="postgresql://u:p@ep-x-1.eu.aws.neon.tech/d", USERS_FILE=str(path))
    )
    assert settings.database.url
    pooled = replace(settings.database.url, host="ep-x-1-pooler.eu.aws.neon.tech")
    one = snapshot_of(settings)
    other = snapshot_of(settings._replace(database=settings.database._replace(url=pooled)))
    assert one._keys == other._keys
