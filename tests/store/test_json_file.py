"""What the JSON store promises beyond the contract: the file."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from shared import files
from shared.errors import EmailTaken, StoreBusy, StoreUnavailable
from shared.model.users import User
from shared.store.json_file import store
from shared.store.json_file.store import JsonFileStore
from shared.store.json_file.users_file import Record
from shared.store.settings import StoreSettings
from tests.support.emulator import ROOT, environment
from tests.support.stores import CLIENT, credentials, session_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the users are."""
    return tmp_path / "users.json"


def _store(path: Path) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=path))


def _user(email: str = "ada@example.com") -> User:
    return User(id=str(uuid.uuid4()), email=email, name="Ada", provider="local")


def test_a_file_that_does_not_exist_holds_no_users_and_is_not_made_by_reading(path: Path) -> None:
    assert credentials(_store(path), "ada@example.com") is None
    assert not path.exists()


def test_a_file_that_had_users_and_is_gone_is_no_file_without_users(path: Path) -> None:
    opened, ada = _store(path), _user()
    opened.create_user(ada, "$2b$hash")
    kept = path.rename(path.with_name("elsewhere.json"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as gone:
            opened.user(ada.id)
        assert str(gone.value.cause).endswith("put it back, or restart without it")
        with pytest.raises(StoreUnavailable):
            opened.create_user(_user("bob@example.com"), "$2b$hash")
    assert not path.exists()
    kept.rename(path)
    assert opened.user(ada.id) == ada


def test_a_file_that_is_made_while_it_is_looked_for_had_no_users_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, ada, stat = _store(path), _user(), os.stat

    def late(*arguments: Any, **options: Any) -> os.stat_result:
        monkeypatch.setattr(os, "stat", stat)
        try:
            return stat(*arguments, **options)
        finally:  # Somebody signs up between the look and what is made of it.
            opened.create_user(ada, "$2b$hash")

    monkeypatch.setattr(os, "stat", late)
    assert opened.user(str(uuid.uuid4())) is None
    assert opened.user(ada.id) == ada


def test_the_file_is_what_the_old_server_would_have_written(path: Path) -> None:
    user = _user()
    _store(path).create_user(user, "$2b$hash")
    (record,) = json.loads(path.read_text())
    assert list(record) == [
        "id",
        "email",
        "password",
        "name",
        "provider",
        "createdAt",
        "updatedAt",
    ]
    assert record["createdAt"].endswith("Z")
    assert len(record["createdAt"]) == len("2025-06-09T17:54:12.721Z")
    assert path.read_text() == json.dumps([record], indent=2, ensure_ascii=False)


def test_the_file_and_its_lock_are_private_whatever_they_were(path: Path) -> None:
    path.write_text("[]")
    path.chmod(0o644)
    _store(path).create_user(_user(), "hash")
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()} == {
        "users.json": 0o600,
        "users.json.lock": 0o600,
    }


def test_a_logout_of_a_session_that_ended_long_ago_writes_nothing(path: Path) -> None:
    store = _store(path)
    user = store.create_user(_user(), "hash")
    before = path.stat()
    store.revoke_session(session_of(user, now=time.time() - 61 * 86400), CLIENT)
    assert path.stat() == before
    store.revoke_session(session_of(user, now=time.time() - 59 * 86400), CLIENT)
    assert path.stat().st_mtime_ns > before.st_mtime_ns


def test_members_that_this_system_does_not_know_are_kept(path: Path) -> None:
    known = {"id": "x", "email": "Eve@Example.com", "googleId": "7", "tags": [1, None], "epoch": 2}
    path.write_text(json.dumps([known]))
    store = _store(path)
    store.create_user(_user(), "hash")
    first, _ = json.loads(path.read_text())
    assert first == known
    found = store.user("x")
    assert found is not None
    assert found.epoch == 2


def test_a_lone_surrogate_that_node_wrote_survives(path: Path) -> None:
    path.write_text('[{"id": "x", "email": "eve@example.com", "name": "\\ud83d"}]')
    _store(path).create_user(_user(), "hash")
    assert json.loads(path.read_text())[0]["name"] == "\ud83d"


def test_what_another_process_wrote_is_seen_at_once(path: Path) -> None:
    one, other = _store(path), _store(path)
    for number in range(20):
        user = _user(f"user{number}@example.com")
        (one if number % 2 else other).create_user(user, "hash")
        assert (other if number % 2 else one).user(user.id) == user


def test_of_records_that_differ_only_in_spelling_the_lower_case_one_has_the_key(
    path: Path,
) -> None:
    records = [
        {"id": "1", "email": "Ada@example.com", "createdAt": "2020-01-01T00:00:00.000Z"},
        {"id": "2", "email": "ada@example.com", "createdAt": "2022-01-01T00:00:00.000Z"},
        {"id": "3", "email": "EVE@example.com", "createdAt": "2021-01-01T00:00:00.000Z"},
        {"id": "4", "email": "Eve@example.com", "createdAt": "2020-01-01T00:00:00.000Z"},
        {"id": "5", "email": "eVe@example.com"},
    ]
    path.write_text(json.dumps(records))
    store = _store(path)
    winners = [credentials(store, key) for key in ("ada@example.com", "eve@example.com")]
    assert [winner.user.id for winner in winners if winner] == ["2", "4"]
    with pytest.raises(EmailTaken):
        store.create_user(_user(), "hash")
    assert json.loads(path.read_text()) == records


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b'[{"id": "1", "email": "a@b.c"}',
        b"{}",
        b'{"users": []}',
        b"null",
        b"[7]",
        b'[{"id": 1, "email": "a@b.c"}]',
        b'[{"id": "1"}]',
        b'[{"id": "1", "email": "a@b.c", "password": 7}]',
        b'[{"id": "1", "email": "a@b.c", "epoch": "x"}]',
        b'[{"id": "1", "id": "2", "email": "a@b.c"}]',
        b'[{"id": "1", "email": "a@b.c", "x": NaN}]',
        b"\xef\xbb\xbf[]",
        b"\xff\xfe[\x00]\x00",
        b"\x00" * 100,
    ],
)
def test_a_damaged_file_is_refused_and_never_overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    store = _store(path)
    with pytest.raises(StoreUnavailable, match="is refused"):
        credentials(store, "ada@example.com")
    with pytest.raises(StoreUnavailable):
        store.create_user(_user(), "hash")
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["emailVerifiedAt", "unverified_since", "disabledAt"])
@pytest.mark.parametrize("value", ["", "yes", False, True, 0, 1764201600, [], "2026-11-27T24:00Z"])
def test_what_decides_who_may_come_in_is_a_time_or_the_file_is_refused(
    path: Path, name: str, value: object
) -> None:
    ada = {"id": "1", "email": "ada@example.com", "password": "hash"}
    path.write_text(
        json.dumps([ada | {"id": "2", "email": "eve@example.com"}, ada | {name: value}])
    )
    with pytest.raises(StoreUnavailable) as caught:
        _store(path).user("1")
    camel = "unverifiedSince" if name == "unverified_since" else name
    assert f"Entry 2: {camel} is not a time: write it like 2025-06-09" in str(caught.value)


def test_such_a_time_may_be_called_as_its_column_and_null_is_as_good_as_missing(
    path: Path,
) -> None:
    time = "2026-11-27T00:00:00.000Z"
    ada = {"id": "1", "email": "ada@example.com", "password": "hash", "team": "blue"}
    for more, is_enabled, is_verified in (
        ({"disabled_at": time}, False, None),
        ({"disabledAt": time, "disabled_at": None}, False, None),
        ({"disabledAt": None, "disabled_at": None}, True, None),
        ({"email_verified_at": time, "unverified_since": time}, True, True),
        ({"unverified_since": 1764201600000}, True, False),
    ):
        path.write_text(json.dumps([ada | more]))
        user = _store(path).user("1")
        assert (user is not None) == is_enabled, more
        assert user is None or user.email_verified is is_verified, more
    store = _store(path)
    assert store.replace_password_hash("1", "hash", "another")
    (record,) = json.loads(path.read_text())
    assert record.pop("updatedAt")
    assert record == ada | {"password": "another", "unverifiedSince": 1764201600000}
    path.write_text(json.dumps([ada | {"disabledAt": time, "disabled_at": f"{time[:-1]}+01:00"}]))
    with pytest.raises(StoreUnavailable, match="Entry 1: disabledAt and disabled_at contradict"):
        store.user("1")


def test_a_file_that_gets_damaged_later_is_noticed(path: Path) -> None:
    store = _store(path)
    user = _user()
    store.create_user(user, "hash")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreUnavailable):
        store.user(user.id)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "folder"])
@pytest.mark.parametrize("name", ["users.json", "users.json.lock"])
def test_only_regular_files_are_read_locked_or_replaced(
    path: Path, tmp_path: Path, kind: str, name: str
) -> None:
    target = tmp_path / "target.json"
    target.write_text("[]")
    special = path.with_name(name)
    if kind == "symlink":
        special.symlink_to(target)
    elif kind == "dangling":
        special.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(special)
    else:
        special.mkdir()
    if (kind, name) == ("fifo", "users.json.lock"):
        return  # A FIFO can be locked, and nothing is ever written to the lock.
    with pytest.raises(StoreUnavailable) as caught:
        _store(path).create_user(_user(), "hash")
    assert "users.json" in str(caught.value.cause)
    assert target.read_text() == "[]"
    assert not (tmp_path / "nowhere").exists()


def test_a_leftover_of_a_killed_writer_is_no_trap(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    path.with_name("users.json.tmp").symlink_to(target)
    _store(path).create_user(_user(), "hash")
    assert target.read_text() == "precious"
    assert not path.is_symlink()


def test_a_writer_that_waits_too_long_gives_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.05)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with files.locked(path, 1):
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    try:
        with pytest.raises(StoreBusy):
            _store(path).create_user(_user(), "hash")
    finally:
        done.set()
        holder.join()
    _store(path).create_user(_user(), "hash")


def test_a_write_that_does_not_fit_loses_nothing_and_says_so(path: Path) -> None:
    store = _store(path)
    user = _user()
    store.create_user(user, "hash")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(StoreUnavailable, match="cannot be written: File too large"):
            store.create_user(_user("eve@example.com"), "hash" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert store.user(user.id) == user
    assert {entry.name for entry in path.parent.iterdir()} == {"users.json", "users.json.lock"}


@pytest.mark.parametrize("kind", ["sign-up", "resolve", "snapshot"])
def test_a_kill_at_any_step_of_a_write_leaves_the_old_file_or_the_new_one(
    path: Path, kind: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_writer", str(path), kind],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    *killed, finished = result.stdout.split()
    assert finished == "after"
    assert len(killed) > 40
    assert set(killed) == {"before", "after"}
    assert killed == sorted(killed, reverse=True), "once there, the new file stays"


# Who signed up while Postgres was away


def _fallback(path: Path) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=path), is_fallback=True)


def test_who_signs_up_with_the_fallback_is_pending_and_nobody_else(path: Path) -> None:
    before = _store(path).create_user(_user(), "hash")
    store = _fallback(path)
    user = store.create_user(_user("eve@example.com"), "hash")
    (operation,) = store.pending()
    assert str(uuid.UUID(operation)) == operation
    for found in (store.find_pending(key=user.email), store.find_pending(user_id=user.id)):
        assert found is not None
        assert found["id"] == user.id
    assert store.find_pending(key=before.email) is None
    assert _store(path).pending() == [operation], "it is in the file"


def test_a_resolved_operation_leaves_the_file_once_and_a_failed_one_stays(path: Path) -> None:
    store = _fallback(path)
    user = store.create_user(_user(), "hash")
    (operation,) = store.pending()
    before = path.read_bytes()

    def fail(_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.resolve(operation, fail)
    assert path.read_bytes() == before
    brought: list[Record] = []

    def bring(record: Record) -> bool:
        brought.append(record)
        return True

    assert store.resolve(operation, bring)
    assert not store.resolve(operation, bring)
    assert [record["id"] for record in brought] == [user.id]
    assert path.read_text() == "[]"


@pytest.mark.parametrize(
    "value", ["x", {}, {"operation": 1, "at": "x"}, {"operation": "x", "at": "x"}, [], None]
)
def test_a_pending_member_that_is_none_damages_the_file(path: Path, value: object) -> None:
    path.write_text(json.dumps([{"id": "x", "email": "eve@example.com", "pending": value}]))
    with pytest.raises(StoreUnavailable):
        _store(path).pending()
