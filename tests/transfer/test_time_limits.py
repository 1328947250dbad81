"""A limit that is meant for requests, or for sessions by default, ends no long operation."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.database import migrations
from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreTimeout, StoreUnavailable, StoreUnreachable
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from shared.store.snapshot import Snapshot
from shared.transfer import access, importing, rollback, staging, steps
from shared.transfer.actions import transfer
from shared.transfer.reconciling import quarantine_of, reconcile
from shared.transfer.steps import Outcome
from tests.support.emulator import environment
from tests.support.in_process import served
from tests.support.interceptor import Interceptor, Message
from tests.support.outage import ADMIN, new_user
from tests.support.postgres import Server, running_pgbouncer
from tests.support.relay import BLACK_HOLE, Mode, Relay
from tests.support.transfers import HASH, Target, finish, nonzero, source_of, user

REQUEST = 1.0
"""Seconds that a request has, and by default every statement and transaction of a session."""
LONGER = 1.4
"""Seconds that a statement takes that waits for a lock."""
SLOWLY = Mode(rate=100_000)
ROWS = [user(number, name="x" * 250) for number in range(260)]
"""They take longer than a request may through a relay that is as slow as that."""
SETTINGS = DatabaseSettings(timeout=REQUEST, connect_timeout=REQUEST, statement_timeout=0.3)
_HAS_TRANSACTION_TIMEOUT = "SELECT name FROM pg_settings WHERE name = 'transaction_timeout'"


@pytest.fixture
def hurried(target: Target, relay: Relay) -> Target:
    """The target, through the relay, where request and session have little time."""
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    names += [name for (name,) in target.run(_HAS_TRANSACTION_TIMEOUT)]
    for name in names:
        target.run(f"ALTER DATABASE {target.name} SET {name} = '{REQUEST}s'")
    through = Target(target.server, target.name, port=relay.port)
    through.database = Database(through.database.url, SETTINGS)
    return through


@contextmanager
def _held(target: Target, sql: str, seconds: float = LONGER) -> Iterator[None]:
    """Have whoever needs the same locks wait for so long."""
    connection = target.server.connect(target.name)
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.run(f"SET {limit} = 0")
    if target.run(_HAS_TRANSACTION_TIMEOUT):
        connection.run("SET transaction_timeout = 0")
    connection.run(f"BEGIN; {sql}")
    timer = threading.Timer(seconds, connection.run, ["ROLLBACK"])
    timer.start()
    try:
        yield
    finally:
        timer.join()
        connection.close()


@contextmanager
def _at_least(seconds: float) -> Iterator[None]:
    """Make sure that what is tried was as slow as is meant."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began > seconds


# --- one connection ------------------------------------------------------------------------------


def _copy(connection: Connection) -> None:
    with connection.copy_in("COPY target FROM STDIN") as send:
        send(b"1\n")
        time.sleep(0.6)
        send(b"2\n")


_STATEMENTS: dict[str, Callable[[Connection], object]] = {
    "statement": lambda connection: connection.execute("SELECT pg_sleep(0.6)"),
    "script": lambda connection: connection.run_script("SELECT 1; SELECT pg_sleep(0.6)"),
    "copy": _copy,
}


@pytest.mark.parametrize("kind", _STATEMENTS)
def test_a_statement_has_the_time_that_is_left_now_and_not_what_was_left_for_an_earlier_one(
    target: Target, kind: str
) -> None:
    with target.database.direct_connection(time.monotonic() + 10) as connection:
        connection.run_script("BEGIN; CREATE TEMP TABLE target (n integer)")
        connection.set_deadline(time.monotonic() + 0.5)
        connection.execute("SELECT 1")
        connection.set_deadline(time.monotonic() + 10)
        _STATEMENTS[kind](connection)
        connection.set_deadline(time.monotonic() + 0.5)
        with pytest.raises((StoreTimeout, ConnectionLost)):
            _STATEMENTS[kind](connection)


def test_the_place_of_an_error_is_that_in_the_script_whatever_bounds_it(target: Target) -> None:
    with target.database.direct_connection(time.monotonic() + 10) as connection:
        for begin in ("SELECT 1", "BEGIN"):
            connection.run_script(begin)
            with pytest.raises(Exception, match="nothing"):
                connection.run_script("SELECT 1; SELECT * FROM nothing")
            assert connection.position == len("SELECT 1; SELECT * FROM ") + 1
            assert connection.completed in (0, 1)
            connection.run_script("ROLLBACK")
            assert connection.completed == 1


# --- each long operation, through a slow line ----------------------------------------------------


def test_an_import_may_send_rows_for_longer_than_a_request_may_take(
    hurried: Target, relay: Relay
) -> None:
    relay.mode = SLOWLY
    with _at_least(REQUEST):
        applied, _ = hurried.apply(ROWS)
    assert applied.batch
    assert len(hurried.users()) == len(ROWS)


def test_a_verification_may_take_longer_than_a_request(hurried: Target, relay: Relay) -> None:
    """As may a plan, which does the same: of each row it sends little more than a digest."""
    rows = [user(number) for number in range(1_000)]
    hurried.apply(rows)
    relay.mode = SLOWLY
    with _at_least(REQUEST):
        found, _ = hurried.verify(rows)
    assert nonzero(found.counts) == {"identical": len(rows)}


def test_an_import_may_wait_longer_for_a_row_than_a_request_may_take(hurried: Target) -> None:
    hurried.apply(ROWS)
    changed = [row | {"name": "y"} for row in ROWS]
    with _held(hurried, "SELECT FROM users FOR UPDATE"), _at_least(REQUEST):
        applied, _ = hurried.apply(changed)
    assert nonzero(applied.plan.counts) == {"changed": len(ROWS)}


def test_a_rollback_may_take_longer_than_a_request(hurried: Target) -> None:
    applied, _ = hurried.apply(ROWS)
    with _held(hurried, "SELECT FROM users FOR UPDATE"), _at_least(REQUEST):
        done, _ = finish(rollback.roll_back(hurried.database, str(applied.batch), run_by="test"))
    assert nonzero(done.counts) == {"removed": len(ROWS)}


def test_an_export_may_take_longer_than_a_request(hurried: Target, relay: Relay) -> None:
    """The server has sent everything long before it arrives, and waits idly in its transaction."""
    hurried.apply(ROWS)
    relay.mode = SLOWLY
    with _at_least(REQUEST):
        exported = hurried.export()
    assert json.loads(exported) == ROWS


def test_a_snapshot_may_take_longer_than_a_request(
    hurried: Target, relay: Relay, tmp_path: Path
) -> None:
    hurried.apply(ROWS)
    relay.mode = SLOWLY
    snapshot = Snapshot(tmp_path / "snapshot", ["x" * 32], "name")
    with _at_least(REQUEST):
        assert snapshot.take(hurried.database, time.time()) == len(ROWS)


def test_a_reconciliation_may_take_longer_than_a_request(hurried: Target, tmp_path: Path) -> None:
    users = JsonFileStore(StoreSettings(users_file=tmp_path / "users.json"), is_fallback=True)
    users.create_user(new_user("ada@example.com"), HASH)
    insert = "INSERT INTO users (email) VALUES ('ada@example.com')"
    with _held(hurried, insert), _at_least(REQUEST):
        done, _ = finish(reconcile(hurried.database, users, quarantine_of(tmp_path / "users.json")))
    assert (nonzero(done.counts), done.pending) == ({"created": 1}, 0)


# --- the schema ----------------------------------------------------------------------------------


@pytest.fixture
def slow_migration(hurried: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that takes longer than a request is pending."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for file in migrations.FOLDER.glob("*.sql"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "9001_slow.sql").write_text(
        f"CREATE TABLE slow (id integer); SELECT pg_sleep({LONGER});"
    )
    load = migrations.load
    monkeypatch.setattr(migrations, "load", lambda: load(folder))


@pytest.mark.usefixtures("slow_migration")
def test_a_migration_by_hand_may_take_longer_than_a_request(hurried: Target) -> None:
    variables = environment(
        DATABASE_URL=hurried.server.url(hurried.name), DATABASE_TIMEOUT=str(REQUEST)
    )
    ended = CliRunner().invoke(transfer, ["schema", "apply"], env=variables)
    assert ended.exit_code == 0, ended.stderr
    assert hurried.run("SELECT FROM slow") == []


@pytest.mark.usefixtures("slow_migration")
def test_so_may_one_that_an_administrator_has_applied_over_http(
    hurried: Target, tmp_path: Path
) -> None:
    variables = {
        "DATABASE_URL": hurried.server.url(hurried.name),
        "DATABASE_TIMEOUT": str(REQUEST),
        "USERS_FILE": str(tmp_path / "users.json"),
        "ADMIN_TOKEN": ADMIN,
    }
    (tmp_path / "users.json").write_text("[]")
    headers = [("Authorization", f"Bearer {ADMIN}"), ("Content-Type", "application/json")]
    with served(**variables) as app:
        answer = app.send("POST", "/api/migrate", headers, b'{"action": "apply"}')
    assert json.loads(answer.text.splitlines()[-1])["event"] == "result", answer.text
    assert hurried.run("SELECT FROM slow") == []


# --- what does have a limit ----------------------------------------------------------------------


def test_a_commit_whose_answer_is_lost_is_asked_after_for_longer_than_an_import_waits(
    target: Target, interceptor: Interceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own transaction has the lock until it is really over."""
    monkeypatch.setattr(staging, "LOCK_SECONDS", 0.3)
    stack = ExitStack()

    def watch(message: Message) -> bool:
        if message.is_committed:
            lock = f"SELECT pg_advisory_xact_lock({staging.LOCK_KEY})"
            stack.enter_context(_held(target, lock, 1))
        return message.is_committed

    interceptor.watch = watch
    database = Database(DatabaseUrl.parse(interceptor.url(target.name)), DatabaseSettings())
    source = source_of([user(1)])
    with stack:
        applied, _ = finish(importing.apply(database, source, batch_id="x", run_by="test"))
    assert applied.batch == "x"


@pytest.mark.parametrize("write", [access.IMPORT, None])
def test_a_database_that_says_nothing_is_found_in_the_time_of_a_request(
    postgres: Server, target: Target, pgbouncer_program: str, write: access.Rights | None
) -> None:
    """As behind a pooler that answers by itself, and has no server."""
    with running_pgbouncer(postgres, server_connections=1) as pooler, pooler.paused():
        url = DatabaseUrl.parse(postgres.url(target.name, port=pooler.port))
        began = time.monotonic()
        with (
            pytest.raises(StoreUnreachable),
            steps.transaction(Database(url, SETTINGS), write=write),
        ):
            pytest.fail("it has begun")
        assert time.monotonic() - began < 60


def test_a_second_attempt_at_a_sign_up_connects_in_the_time_that_the_file_is_locked_for(
    target: Target, relay: Relay
) -> None:
    relay.mode = BLACK_HOLE
    url = DatabaseUrl.parse(target.server.url(target.name, port=relay.port))
    database = Database(url, DatabaseSettings(timeout=60, connect_timeout=60))
    began = time.monotonic()
    with (
        pytest.raises(StoreUnreachable),
        steps.transaction(database, write=access.IMPORT, seconds=0.5),
    ):
        pytest.fail("it has begun")
    assert time.monotonic() - began < 30


def test_who_reads_no_outcomes_holds_an_import_up_for_a_bounded_time(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client of the function that reads nothing, while the import has the lock."""
    monkeypatch.setattr(staging, "IDLE_SECONDS", 0.2)
    rows = [user(1), user(2, email="USER1@example.com")]
    stalled = importing.apply(
        target.database, source_of(rows), batch_id="x", run_by="test", skip_invalid=True
    )
    assert any(isinstance(event, Outcome) for event in stalled)
    target.apply([user(1)])
    with pytest.raises(StoreUnavailable):
        finish(stalled)
