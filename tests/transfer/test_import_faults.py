"""Whatever happens to a transfer: everything or nothing, the truth about which, and a way on."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from shared.errors import InvalidSource, StoreUnavailable, TransferRefused
from shared.transfer import backup, importing, rollback, staging, writing
from shared.transfer.steps import Ready
from tests.support.commands import Command, Ended, Stopped, run
from tests.support.emulator import Emulator, running_emulator
from tests.support.interceptor import Interceptor, Message
from tests.support.old_database import OLD_DDL, OLD_ROWS
from tests.support.postgres import Server
from tests.support.transfers import Target, finish, source_of, user
from tests.support.waiting import until

USERS = 300
AT_ONCE = 8.0
"""Seconds in which a run ends that waits for nobody: some tenths, and a slow machine."""
NOTHING, EVERYTHING = [[0, 0, 0, 0]], [[USERS, USERS, 1, USERS]]
APPLY = ("apply", "--yes", "--skip-invalid")
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2
_STATE = """
SELECT (SELECT count(*) FROM users), (SELECT count(DISTINCT email_key) FROM users),
       (SELECT count(*) FROM import_batches), (SELECT count(*) FROM import_records)
"""
_OTHERS = """
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
AND pid <> pg_backend_pid()
"""
_WAITING = f"SELECT count(*) {_OTHERS} AND wait_event_type = 'Lock'"
_TERMINATE = f"SELECT pg_terminate_backend(pid, 10000) {_OTHERS}"


class _Target(Target):
    """A target with one connection for all that is asked, because tests here ask often."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(server, name)
        self._asking = threading.Lock()
        self._connection = server.connect(name)

    def run(self, sql: str) -> list[list[Any]]:
        """Run SQL as the superuser, past our code."""
        with self._asking:
            rows: list[list[Any]] = self._connection.run(sql)
            return rows

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def target(postgres: Server, database: str) -> Iterator[Target]:
    opened = _Target(postgres, database)
    yield opened
    opened.close()


@pytest.fixture
def interceptor(postgres: Server) -> Iterator[Interceptor]:
    with Interceptor(postgres) as running:
        yield running


@pytest.fixture
def users_file(tmp_path: Path) -> Path:
    """A file of users, the last of whom cannot be brought over."""
    return _write(tmp_path / "users.json", [*map(user, range(USERS)), user(USERS, email="nobody")])


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows, indent=1))
    return path


def _url(target: Target) -> str:
    return target.server.url(target.name)


def _state(target: Target) -> list[list[Any]]:
    """Count users, their keys, batches and records."""
    return target.run(_STATE)


def _snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give every file of a folder, and the folder, with mode, time and bytes."""
    return {
        path.name: (path.stat().st_mode, path.stat().st_mtime_ns, _bytes(path))
        for path in [folder, *folder.iterdir()]
    }


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""


def _check_files(users_file: Path) -> list[str]:
    """Check that what has a real name is whole, and give the names of all but the source."""
    for path in users_file.parent.glob("users.report.*.jsonl"):
        rows = [json.loads(line)["row"] for line in path.read_text().splitlines()]
        assert rows == list(range(1, USERS + 2))
    for path in users_file.parent.glob("users.rejected.*.json"):
        assert json.loads(path.read_text()) == [user(USERS, email="nobody")]
    names = sorted(path.name for path in users_file.parent.iterdir())
    names.remove("users.json")
    for name in names:
        assert name.endswith((".tmp", ".json", ".jsonl"))
    return names


def _waiting(target: Target) -> int:
    """Count who waits for a lock."""
    return int(target.run(_WAITING)[0][0])


def _sessions_end(target: Target) -> None:
    """Wait until the server has noticed that its clients are gone."""
    until(lambda: target.run(f"SELECT count(*) {_OTHERS}") == [[0]])


def _forget(target: Target, users_file: Path) -> None:
    """Begin anew."""
    target.run("TRUNCATE users, identities, import_batches, import_records")
    for path in users_file.parent.iterdir():
        if path != users_file:
            path.unlink()


# --- a dry run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", ["users", "nothing", "old users"])
def test_a_dry_run_changes_neither_the_database_nor_a_file(
    postgres: Server, make_database: Callable[..., str], users_file: Path, holds: str
) -> None:
    """`pg_dump` says the same before and after, and so do the folder's bytes, times and modes."""
    target = Target(postgres, make_database(migrated=holds == "users"))
    if holds == "users":
        target.apply([user(1, name="Ada"), user(2), user(999)])
        target.run("UPDATE users SET name = 'Later' WHERE email = 'user2@example.com'")
    elif holds == "old users":
        target.run(f"SET ROLE app; {OLD_DDL}")
        target.run(OLD_ROWS)
    before = target.dump(), _snapshot(users_file.parent)
    ended = run(_url(target), users_file, "plan", "--json")
    assert ended.code == (1 if holds == "old users" else 3), ended.error
    assert (target.dump(), _snapshot(users_file.parent)) == before


@pytest.mark.parametrize("sql", ["COPY", "ANALYZE", "DECLARE"])
def test_an_interrupted_dry_run_changes_nothing_either(
    target: Target, interceptor: Interceptor, users_file: Path, sql: str
) -> None:
    target.apply([user(1), user(2)])
    before = target.dump(), _snapshot(users_file.parent)
    ended = _signalled(
        interceptor, target, users_file, ("plan",), signal.SIGINT,
        lambda message: message.sql.startswith(sql),
    )  # fmt: skip
    assert (ended.code, ended.error.splitlines()[-1]) == (130, "Interrupted. Nothing was changed.")
    assert (target.dump(), _snapshot(users_file.parent)) == before


# --- kill -9 -------------------------------------------------------------------------------------


class _Nth:
    """Is true at the n-th request of a client, the rows of a COPY included; counts them all."""

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self.count = 0

    def __call__(self, message: Message) -> bool:
        if message.sender != "client" or message.kind not in "QPdcp":
            return False
        self.count += 1
        return self.count == self._number


@pytest.mark.parametrize("count", [6, pytest.param(40, marks=pytest.mark.long)])
def test_a_killed_apply_leaves_everything_or_nothing_and_the_next_one_works_at_once(
    target: Target, interceptor: Interceptor, users_file: Path, count: int
) -> None:
    """Killed at so many requests between the first connection and the COMMIT, and after it."""
    requests = _Nth()
    interceptor.watch = requests
    assert run(interceptor.url(target.name), users_file, *APPLY).code == 0
    last = requests.count
    points = [*range(1, last - 1, max(1, last // count)), last - 1, last]
    assert len(points) >= min(count, last)
    for point in points:
        _forget(target, users_file)
        _signalled(interceptor, target, users_file, APPLY, signal.SIGKILL, _Nth(point))
        assert not _is_brought_by_the_next(target, users_file), point
    _forget(target, users_file)
    _signalled(interceptor, target, users_file, APPLY, signal.SIGKILL, _is_committed)
    assert _is_brought_by_the_next(target, users_file)


def _is_brought_by_the_next(target: Target, users_file: Path) -> bool:
    """Apply once more, which must work at once, and tell if everything was there already."""
    started = time.monotonic()
    again = run(_url(target), users_file, *APPLY)
    assert again.code == 0, again.error
    assert time.monotonic() - started < AT_ONCE
    assert _state(target) == EVERYTHING
    _check_files(users_file)
    return "Nothing to write" in again.output


def _is_committed(message: Message) -> bool:
    """Tell whether the server says that it has committed."""
    return message.is_committed


def test_a_killed_apply_that_waited_on_the_server_is_ended_there_within_seconds(
    target: Target, users_file: Path
) -> None:
    """Its statement goes on without it, and with it its locks, until the server looks for it."""
    with _locked(target, "LOCK TABLE users IN SHARE MODE"):
        command = Command(_url(target), users_file, *APPLY)
        until(lambda: _waiting(target))
        command.process.kill()
        command.wait()
        started = time.monotonic()
        until(lambda: not _waiting(target))
        assert time.monotonic() - started < AT_ONCE
    assert _state(target) == NOTHING
    assert not _is_brought_by_the_next(target, users_file)


@contextlib.contextmanager
def _locked(target: Target, sql: str) -> Iterator[None]:
    """Hold a lock in a transaction of another session."""
    with target.server.connect(target.name) as connection:
        connection.run("BEGIN")
        connection.run(sql)
        yield


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.long)])
def test_an_apply_killed_at_a_line_leaves_real_names_to_whole_files_only(
    target: Target, users_file: Path, count: int
) -> None:
    """Killed where it writes, syncs and names its files, and where it commits."""
    with Stopped(signal.SIGKILL, _url(target), users_file, *APPLY) as stopped:
        code, last = stopped.at(0)
        assert (code, _state(target)) == (0, EVERYTHING)
        assert len(_check_files(users_file)) == 2
        seen = []
        for line in [*range(1, last, last // count), *range(last - 3, last + 1)]:
            _forget(target, users_file)
            assert stopped.at(line) == (-signal.SIGKILL, line)
            _sessions_end(target)
            seen.append(_state(target))
            left = _check_files(users_file)
            if seen[-1] == EVERYTHING:
                assert sum(not name.endswith(".tmp") for name in left) == 2
            code, _ = stopped.at(0)
            assert (code, _state(target)) == (0, EVERYTHING)
            new = sorted(set(_check_files(users_file)) - set(left))
            assert len(new) == (2 if seen[-1] == NOTHING else 0)
        assert all(state in (NOTHING, EVERYTHING) for state in seen)
        assert sorted(seen) == seen
        assert {str(state) for state in seen} == {str(NOTHING), str(EVERYTHING)}


def _signalled(
    interceptor: Interceptor,
    target: Target,
    users_file: Path,
    arguments: tuple[str, ...],
    number: signal.Signals,
    condition: Callable[[Message], object],
) -> Ended:
    """Send a signal at a message, which goes on only where the process does."""
    started = threading.Event()
    done = threading.Event()

    def watch(message: Message) -> bool:
        if done.is_set() or not condition(message):
            return False
        done.set()
        started.wait()
        command.process.send_signal(number)
        if message.is_commit and number != signal.SIGKILL:
            return False
        until(lambda: _has_ended(command.process))
        return True

    interceptor.watch = watch
    command = Command(interceptor.url(target.name), users_file, *arguments)
    started.set()
    ended = command.wait()
    assert done.is_set(), ended
    return ended


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Look without taking the process's status from the thread that waits for it."""
    try:
        status = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


# --- the server's backend is killed, or the connection is lost -----------------------------------


def _run_watched(
    interceptor: Interceptor,
    target: Target,
    users_file: Path,
    watch: Callable[[Message], object],
    *arguments: str,
) -> Ended:
    interceptor.watch = watch
    return run(interceptor.url(target.name), users_file, *(arguments or APPLY))


def _ended_with_nothing(ended: Ended, target: Target, users_file: Path) -> None:
    assert ended.code == 1, ended
    assert _state(target) == NOTHING
    assert _check_files(users_file) == []
    assert not _is_brought_by_the_next(target, users_file)


def test_a_backend_that_is_killed_during_the_copy_leaves_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = _run_watched(
        interceptor, target, users_file,
        lambda message: _terminate(target) if message.kind == "d" else None,
    )  # fmt: skip
    assert "The database cannot do it" in ended.error
    assert ended.error.endswith("Nothing was changed.\n")
    _ended_with_nothing(ended, target, users_file)


def _terminate(target: Target) -> object:
    """Kill every backend, and forward the message all the same."""
    target.run(_TERMINATE)
    return None


def test_a_backend_that_is_killed_during_the_write_leaves_nothing(
    target: Target, users_file: Path
) -> None:
    with _locked(target, "LOCK TABLE users IN SHARE MODE"):
        command = Command(_url(target), users_file, *APPLY)
        until(lambda: _waiting(target))
        target.run(f"{_TERMINATE} AND wait_event_type = 'Lock'")
        ended = command.wait()
    assert "The database cannot do it" in ended.error
    assert ended.error.endswith("Nothing was changed.\n")
    _ended_with_nothing(ended, target, users_file)


def test_a_backend_that_is_killed_before_the_commit_leaves_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = _run_watched(
        interceptor,
        target,
        users_file,
        lambda message: _terminate(target) if message.is_commit else None,
    )
    assert ended.error.endswith("lost at the COMMIT, and nothing was written.\n")
    _ended_with_nothing(ended, target, users_file)


def test_an_apply_that_falls_silent_does_not_keep_everyone_out(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a laptop is closed while the table is locked: the server undoes it by itself."""
    monkeypatch.setattr(staging, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", 1)
    silent = importing.apply(target.database, source_of([user(1)]), batch_id="first", run_by="test")
    assert any(isinstance(event, Ready) for event in silent)
    target.run("INSERT INTO users (email) VALUES ('ada@example.com')")
    with pytest.raises(TransferRefused, match="lost at the COMMIT, and nothing was written"):
        finish(silent)
    assert _state(target) == [[1, 1, 0, 0]]


def test_a_commit_that_never_reached_the_server_is_said_to_have_written_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = _run_watched(interceptor, target, users_file, lambda message: message.is_commit)
    assert ended.error.endswith("lost at the COMMIT, and nothing was written.\n")
    _ended_with_nothing(ended, target, users_file)


def test_a_commit_whose_answer_is_lost_is_found_out_to_be_done(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = _run_watched(interceptor, target, users_file, _is_committed)
    assert ended.code == 0, ended.error
    assert "Written and proven" in ended.output
    assert _state(target) == EVERYTHING
    assert len(_check_files(users_file)) == 2
    assert _is_brought_by_the_next(target, users_file)


def test_a_commit_of_which_nobody_can_be_asked_is_not_said_to_have_done_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    """The exit code is one of its own, and the report stays, which names the batch to ask for."""

    def watch(message: Message) -> bool:
        if message.is_committed:
            interceptor.is_open = False
        return message.is_committed

    ended = _run_watched(interceptor, target, users_file, watch)
    assert ended.code == 6
    assert "ask `status`" in ended.error
    assert "othing was" not in ended.error
    assert _state(target) == EVERYTHING
    assert len(_check_files(users_file)) == 2
    assert _is_brought_by_the_next(target, users_file)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_rollback_whose_commit_is_lost_says_what_became_of_it(
    target: Target, interceptor: Interceptor, users_file: Path, *, is_done: bool
) -> None:
    applied, _ = target.apply([user(1), user(2)])
    ended = _run_watched(
        interceptor, target, users_file,
        _is_committed if is_done else lambda message: message.is_commit,
        "rollback", str(applied.batch), "--yes",
    )  # fmt: skip
    assert ended.code == (0 if is_done else 1)
    assert len(target.users()) == (0 if is_done else 2)
    if not is_done:
        assert "nothing was written" in ended.error


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("arguments", [APPLY, ("rollback", "first", "--yes")])
def test_who_cannot_be_shown_what_was_written_is_not_told_that_nothing_was(
    target: Target,
    interceptor: Interceptor,
    users_file: Path,
    arguments: tuple[str, ...],
    as_json: list[str],
) -> None:
    """Whoever read standard output goes away at the COMMIT."""
    if arguments != APPLY:
        target.apply([user(1), user(2)], batch_id="first")
    reader, writer = os.pipe()

    def watch(message: Message) -> None:
        if message.is_committed:
            os.close(reader)

    interceptor.watch = watch
    url = interceptor.url(target.name)
    ended = Command(url, users_file, *arguments, *as_json, stdout=writer).wait()
    os.close(writer)
    what = "import" if arguments == APPLY else "rollback"
    assert ended.code == 1
    assert ended.error.endswith(f"Broken pipe. The {what} was done.\n")
    assert _state(target) == (EVERYTHING if arguments == APPLY else [[0, 0, 1, 0]])


# --- a full disk ---------------------------------------------------------------------------------


def _on_a_full_disk(target: Target, users_file: Path, size: int, *arguments: str) -> Ended:
    """Run a command that cannot make any file longer than `size`; this needs no root."""
    limit = (size, resource.RLIM_INFINITY)
    return Command(
        _url(target), users_file, *arguments,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    ).wait()  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "size", "arguments"),
    [
        ("backup", 40_000, ["backup"]),
        ("export", 40_000, ["export"]),
        ("report", 10_000, APPLY),
        ("rejected", 100_000, APPLY),
    ],
)
def test_a_full_disk_is_said_to_be_and_leaves_everything_as_it_was(
    target: Target, users_file: Path, kind: str, size: int, arguments: list[str]
) -> None:
    rows = [*map(user, range(USERS)), user(USERS, email="nobody", avatar="x" * size)]
    _write(users_file, rows)
    if kind == "export":
        target.apply(rows, skip_invalid=True)
    before = target.dump(), _snapshot(users_file.parent).keys(), users_file.read_bytes()
    ended = _on_a_full_disk(target, users_file, size, *arguments)
    assert ended.code == 1, ended
    sentence = ended.error.splitlines()[-1]
    assert sentence.startswith("File too large: ")
    assert f"users.{kind}." in sentence
    assert sentence.endswith(". Nothing was changed.")
    assert (target.dump(), _snapshot(users_file.parent).keys(), users_file.read_bytes()) == before
    assert run(_url(target), users_file, *arguments).code == 0


# --- two at once ---------------------------------------------------------------------------------


def _held_at_its_commit(
    interceptor: Interceptor, target: Target, users_file: Path, *arguments: str
) -> tuple[Command, threading.Event]:
    """Start a command, and hold it back at its COMMIT until the event is set."""
    reached, go = threading.Event(), threading.Event()

    def watch(message: Message) -> None:
        if message.is_commit:
            reached.set()
            go.wait(30)

    interceptor.watch = watch
    command = Command(interceptor.url(target.name), users_file, *arguments)
    until(reached.is_set)
    return command, go


def _both(
    interceptor: Interceptor,
    target: Target,
    first: tuple[Path, tuple[str, ...]],
    second: tuple[Path, tuple[str, ...]],
) -> tuple[Ended, Ended]:
    """Start the second command while the first one is at its COMMIT, and see that it waits."""
    ahead, go = _held_at_its_commit(interceptor, target, first[0], *first[1])
    try:
        behind = Command(_url(target), second[0], *second[1])
        until(lambda: _waiting(target))
    finally:
        go.set()
    return ahead.wait(), behind.wait()


def test_of_two_applies_of_one_source_the_second_waits_and_has_nothing_to_do(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    first, second = _both(interceptor, target, (users_file, APPLY), (users_file, APPLY))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert "Nothing to write" in second.output
    assert _state(target) == EVERYTHING


def test_of_two_applies_of_two_sources_each_brings_its_own(
    target: Target, interceptor: Interceptor, users_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = _write(tmp_path / "other" / "users.json", [user(n) for n in range(200, 500)])
    first, second = _both(interceptor, target, (users_file, APPLY), (other, APPLY))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert _state(target) == [[500, 500, 2, 500]]
    counts = target.run("SELECT counts->>'new', counts->>'identical' FROM import_batches")
    assert counts == [["300", "0"], ["200", "100"]]


def test_an_apply_and_a_rollback_at_once_come_one_after_the_other(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    """Whom the rollback removed can come again."""
    target.apply([user(1), user(USERS + 1)], batch_id="first")
    back = ("rollback", "first", "--yes")
    first, second = _both(interceptor, target, (users_file, APPLY), (users_file, back))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert _state(target)[0][0] == USERS - 1
    first, second = _both(
        interceptor, target,
        (users_file, ("rollback", _batches(target)[-1], "--yes")), (users_file, APPLY),
    )  # fmt: skip
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert _state(target)[0][0] == USERS


def _batches(target: Target) -> list[str]:
    return [row[0] for row in target.run("SELECT id FROM import_batches ORDER BY number")]


def test_who_waits_too_long_for_another_import_says_so_and_changes_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied, _ = target.apply([user(1)])
    before = target.dump()
    monkeypatch.setattr(staging, "LOCK_SECONDS", 0.2)
    with _locked(target, f"SELECT pg_advisory_xact_lock({staging.LOCK_KEY})"):
        with pytest.raises(StoreUnavailable, match="another import or rollback"):
            target.apply([user(1), user(2)])
        with pytest.raises(StoreUnavailable, match="another import or rollback"):
            finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.dump() == before
    target.apply([user(1), user(2)])


# --- sign-ups and logins meanwhile ---------------------------------------------------------------

IMPORTED, SIGN_UPS = 2_000, 400
THEIRS = "the password of whom the import brings"


class _Traffic:
    """Clients of the functions that sign up and log in, and what they were answered.

    Every fourth of those who sign up does so under an address that the import brings.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [
            *(threading.Thread(target=self._sign_up) for _ in range(3)),
            *(threading.Thread(target=self._log_in) for _ in range(2)),
        ]
        self.passwords: dict[str, str] = {}
        """Of those who were told that they are signed up."""
        self.answers: Counter[tuple[str, int]] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    @property
    def conflicts(self) -> list[str]:
        """The addresses of the import's under which somebody signed up."""
        return [email for email in self.passwords if email.startswith("user")]

    def _sign_up(self) -> None:
        with self._emulator.client() as client:
            while not self._stop.is_set() and (number := next(self._numbers)) < SIGN_UPS:
                name = f"User{number}" if number % 4 == 0 else f"fresh{number}"
                email, password = f"{name}@example.com", f"their own, number {number}"
                answer = client.post("/api/signup", json={"email": email, "password": password})
                client.cookies.clear()
                self.answers["signup", answer.status_code] += 1
                if answer.status_code == 201:
                    self.passwords[email.lower()] = password

    def _log_in(self) -> None:
        with self._emulator.client() as client:
            while not self._stop.is_set():
                number = random.randrange(IMPORTED)
                self.answers["login", self.log_in(client, f"user{number}@example.com", THEIRS)] += 1

    def log_in(self, client: httpx.Client, email: str, password: str) -> int:
        answer = client.post("/api/login", json={"email": email, "password": password})
        client.cookies.clear()
        return answer.status_code


@pytest.fixture(scope="module")
def imported() -> list[dict[str, Any]]:
    theirs = bcrypt.hashpw(THEIRS.encode(), bcrypt.gensalt(4)).decode()
    return [user(number, password=theirs) for number in range(IMPORTED)]


@pytest.mark.parametrize(
    ("already", "begins_at", "code"),
    [
        pytest.param(0, "ALTER TABLE identities DROP", 0, id="empty-and-locked"),
        pytest.param(0, "LOCK TABLE users", 3, id="empty-until-it-is-locked"),
        pytest.param(50, "SELECT coalesce(max(number)", 3, id="not-empty"),
    ],
)
def test_who_signs_up_during_an_import_is_neither_lost_nor_doubled(
    target: Target,
    interceptor: Interceptor,
    tmp_path: Path,
    imported: list[dict[str, Any]],
    already: int,
    begins_at: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who signs up first keeps the address, and the import says so and writes nothing.

    Whoever comes second is told that the address is taken.
    """
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", IMPORTED)
    users_file = _write(tmp_path / "users.json", imported)
    if already:
        target.apply([user(IMPORTED + number) for number in range(already)])
    with (
        running_emulator(DATABASE_URL=_url(target), HASH_CONCURRENCY="2") as emulator,
        emulator.client() as client,
    ):
        client.get("/api/health")
        traffic = _Traffic(emulator)
        begun = threading.Event()

        def watch(message: Message) -> None:
            if message.sql.startswith(begins_at) and not begun.is_set():
                begun.set()
                traffic.start()
                until(lambda: _waiting(target) >= 3 if code == 0 else traffic.conflicts)

        interceptor.watch = watch
        try:
            first = run(interceptor.url(target.name), users_file, "apply", "--yes")
            assert first.code == code, first.error
            if code:
                assert _state(target)[0][2:] == ([1, already] if already else [0, 0])
            again = run(_url(target), users_file, *APPLY)
            assert again.code == 0, again.error
            if code == 0:
                until(lambda: traffic.answers["signup", 409])
        finally:
            traffic.stop()
        _check_traffic(traffic, target, imported, already)
        for email, password in traffic.passwords.items():
            assert traffic.log_in(client, email, password) == 200
        for row in imported[1:IMPORTED:100]:
            assert traffic.log_in(client, row["email"], THEIRS) == 200


def _check_traffic(
    traffic: _Traffic, target: Target, imported: list[dict[str, Any]], already: int
) -> None:
    assert set(traffic.answers) <= {
        ("signup", 201), ("signup", 409), ("signup", 503),
        ("login", 200), ("login", 401), ("login", 503),
    }  # fmt: skip
    assert traffic.answers["signup", 201]
    assert traffic.answers["login", 200]
    counts = target.verify(imported)[0].counts
    assert counts["email_taken"] == len(traffic.conflicts)
    brought = counts["identical"] + counts["kept"]
    assert brought == IMPORTED - len(traffic.conflicts)
    ((users, keys, _, records),) = _state(target)
    assert users == keys
    assert records == brought + already
    unsure = traffic.answers["signup", 503]
    signed_up = users - records
    assert len(traffic.passwords) <= signed_up <= len(traffic.passwords) + unsure


# --- interrupts ----------------------------------------------------------------------------------

_MOMENTS: dict[str, Callable[[Message], object]] = {
    "connecting": _Nth(1),
    "staging": lambda message: message.sql.startswith("COPY"),
    "copying": lambda message: message.kind == "d",
    "comparing": lambda message: message.sql.startswith("ANALYZE"),
    "writing": lambda message: message.sql.lstrip().startswith("INSERT INTO users"),
    "recording": lambda message: "INSERT INTO import_batches" in message.sql,
    "reporting": lambda message: message.sql.startswith(f"FETCH {staging.FETCH_BLOCKS} "),
}


@pytest.mark.parametrize(
    ("moment", "number"), [*zip(_MOMENTS, itertools.cycle([signal.SIGINT, signal.SIGTERM]))]
)
def test_an_interrupted_apply_says_that_nothing_was_changed_and_nothing_was(
    target: Target,
    interceptor: Interceptor,
    users_file: Path,
    moment: str,
    number: signal.Signals,
) -> None:
    before = _snapshot(users_file.parent)
    ended = _signalled(interceptor, target, users_file, APPLY, number, _MOMENTS[moment])
    assert ended.code == 130
    assert ended.error.splitlines()[-1] == "Interrupted. Nothing was changed."
    _sessions_end(target)
    assert _state(target) == NOTHING
    assert _snapshot(users_file.parent).keys() == before.keys()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_apply_that_waits_for_another_one_can_be_interrupted(
    target: Target, users_file: Path, number: signal.Signals
) -> None:
    with _locked(target, f"SELECT pg_advisory_xact_lock({staging.LOCK_KEY})"):
        command = Command(_url(target), users_file, *APPLY)
        until(lambda: _waiting(target))
        command.process.send_signal(number)
        ended = command.wait()
    assert ended.code == 130
    assert ended.error.splitlines()[-1] == "Interrupted. Nothing was changed."
    assert _state(target) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_the_commit_comes_too_late(
    target: Target, interceptor: Interceptor, users_file: Path, number: signal.Signals
) -> None:
    ended = _signalled(
        interceptor, target, users_file, APPLY, number, lambda message: message.is_commit
    )
    assert ended.code == 0
    assert "Written and proven" in ended.output
    assert _state(target) == EVERYTHING
    assert len(_check_files(users_file)) == 2


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.long)])
def test_an_apply_interrupted_at_a_line_ends_before_or_after_but_not_between(
    target: Target, users_file: Path, count: int
) -> None:
    """Interrupted where it writes, syncs and names its files, and where it commits."""
    with Stopped(signal.SIGINT, _url(target), users_file, *APPLY) as stopped:
        _, last = stopped.at(0)
        codes = []
        for line in [*range(1, last, last // count), *range(last - 8, last + 1)]:
            _forget(target, users_file)
            code, _ = stopped.at(line)
            _sessions_end(target)
            codes.append(code)
            names = [name for name in _check_files(users_file) if not name.endswith(".tmp")]
            if code == 130:
                assert (_state(target), names) == (NOTHING, []), line
            else:
                assert (code, _state(target), len(names)) == (0, EVERYTHING, 2), line
        assert set(codes) == {0, 130}


# --- a source that is not what it should be ------------------------------------------------------


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"\xff" * 20
    path.write_bytes(data)


def _garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"[" * 20
    path.write_bytes(data)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _symlink(path: Path) -> None:
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("command", "spoil", "sentence"),
    [
        (APPLY, _truncated, "breaks off"),
        (APPLY, _damaged, "is not in UTF-8"),
        (APPLY, _garbled, "row 151"),
        (APPLY, _empty, "is empty"),
        *(
            (command, *case)
            for command in (APPLY, ("backup",))
            for case in (
                (_fifo, "is not a regular file"),
                (_symlink, "is a symbolic link"),
                (_folder, "is not a regular file"),
                (_missing, "There is no file"),
            )
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_a_sentence_and_left_alone(
    target: Target,
    users_file: Path,
    spoil: Callable[[Path], None],
    sentence: str,
    command: tuple[str, ...],
) -> None:
    """A backup takes any bytes, but no other thing than a file."""
    spoil(users_file)
    before = target.dump(), _snapshot(users_file.parent)
    ended = run(_url(target), users_file, *command)
    assert ended.code == 2, ended
    assert sentence in ended.error.splitlines()[-1]
    assert "Traceback" not in ended.error
    assert (target.dump(), _snapshot(users_file.parent)) == before


@pytest.mark.parametrize("command", [APPLY, ("backup",)])
def test_a_source_that_may_not_be_read_is_refused_in_a_sentence(
    target: Target, users_file: Path, command: tuple[str, ...]
) -> None:
    content = users_file.read_bytes()
    users_file.chmod(0)
    before = _snapshot(users_file.parent)
    ended = Command(_url(target), users_file, *command, before=_as_an_ordinary_owner).wait()
    assert ended.code == 2, ended
    assert ended.error.endswith("users.json cannot be read: Permission denied.\n")
    assert _snapshot(users_file.parent) == before
    users_file.chmod(0o600)
    assert users_file.read_bytes() == content
    assert _state(target) == NOTHING


def _as_an_ordinary_owner() -> None:
    """Take from root what lets it read everything."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # Fails for whom it doesn't concern.


def _replace(path: Path) -> None:
    """As the JSON store and most editors do it."""
    fresh = _write(path.with_name("fresh"), [user(1)])
    fresh.rename(path)


def _append(path: Path) -> None:
    with path.open("a") as file:
        file.write(" ")


def _overwrite(path: Path) -> None:
    """As the old server does it."""
    path.write_bytes(path.read_bytes().replace(b"@example.com", b"@example.org"))


@pytest.mark.parametrize("change", [_replace, _append, _overwrite, _truncated, _missing])
def test_a_source_that_changes_while_it_is_read_is_not_brought(
    target: Target, interceptor: Interceptor, users_file: Path, change: Callable[[Path], None]
) -> None:
    """Neither the old bytes nor the new ones are what the operator has, and least of all both."""
    _write(users_file, [user(n) for n in range(5_000)])
    _change_at(interceptor, users_file, change, lambda message: message.kind == "d")
    ended = run(interceptor.url(target.name), users_file, *APPLY)
    assert ended.code == 2, ended
    assert "The file " in ended.error.splitlines()[-1]
    assert _state(target) == NOTHING
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []


@pytest.mark.parametrize("change", [_replace, _overwrite])
def test_rejected_rows_are_those_of_the_source_that_was_read(
    target: Target, interceptor: Interceptor, users_file: Path, change: Callable[[Path], None]
) -> None:
    """They are read a second time, before the COMMIT; a source that changed by then is refused."""
    _change_at(
        interceptor, users_file, change,
        lambda message: message.sql.lstrip().startswith("INSERT INTO users"),
    )  # fmt: skip
    ended = run(interceptor.url(target.name), users_file, *APPLY)
    assert ended.code == 2, ended
    assert "changed while it was read" in ended.error
    assert _state(target) == NOTHING
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []


def _change_at(
    interceptor: Interceptor,
    users_file: Path,
    change: Callable[[Path], None],
    condition: Callable[[Message], object],
) -> None:
    done = threading.Event()

    def watch(message: Message) -> None:
        if not done.is_set() and condition(message):
            done.set()
            change(users_file)

    interceptor.watch = watch


@pytest.mark.parametrize("change", [_replace, _append, _overwrite, _truncated, _missing])
def test_a_backup_of_a_source_that_changes_meanwhile_leaves_no_backup(
    users_file: Path, change: Callable[[Path], None]
) -> None:
    _write(users_file, [user(n) for n in range(5_000)])
    os.utime(users_file, (0, 0))  # So that the clock's tick hides no change.
    running = backup.back_up(users_file, 0)
    next(running)
    change(users_file)
    with pytest.raises(InvalidSource, match="changed while it was read"):
        finish(running)
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []
