"""Blocks that each statement looks at, with few and with many users: by what they may grow.

The store says its own statements, as requests do, and PostgreSQL counts: the same counters as
EXPLAIN (BUFFERS, WAL) shows, of `pg_stat_statements`, which has triggers in them, too. Neither the
disk nor other work on the machine changes what is counted.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench.imports import server_cpu
from bench.population import AUDIT_DAYS, GOOGLE, TABLES, Somebody, populate
from bench.report import Measurement
from shared.model.clients import Client
from shared.model.statistics import Window
from shared.model.users import ExternalIdentity, IdToken, User
from shared.settings import Settings
from shared.store.contract import Attempt, Credentials
from shared.store.postgres import email_keys, outbox_sql, statements
from shared.store.postgres.statistics import MAX_HOURS, ROLL_UP
from shared.store.postgres.store import PostgresStore
from tests.support.emulator import SECRET
from tests.support.postgres import USER, Server, running_postgres
from tests.support.stores import session_of, snapshot_of
from tests.support.waiting import until

T = TypeVar("T")

PEOPLE = 15
"""Users of each kind, of whom the median counts."""
BATCHES = 5
"""Of expired rows, one clean-up each."""
LOGINS = 1000
HASH = "$2b$10$abcdefghijklmnopqrstuuKDpMoUXyxBcOYNsjA3CYj3TmLS0HPKa"
REQUESTS = "users' requests"
UPKEEP = "upkeep"
WHOLE = "of all users"
"""Kinds of work; the last one reads every user."""

# The latter two are for the load alone: it makes no difference to what is counted.
_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "1GB",
    "maintenance_work_mem": "512MB",
}
# Of the audit there are enough.
_EXPIRE = f"""
INSERT INTO auth_attempts (key, remaining, expires_at)
SELECT 'expired ' || n, 5, now() - interval '1 day'
FROM generate_series(1, {BATCHES * statements.MAX_DELETED}) n;
INSERT INTO revoked_sessions (sid, ends_at)
SELECT 'expired ' || n, now() - interval '3 days'
FROM generate_series(1, {BATCHES * statements.MAX_DELETED}) n
"""  # noqa: S608  # constants
_COUNTED = f"""
SELECT coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint,
    coalesce(sum(shared_blks_dirtied), 0)::bigint, coalesce(sum(wal_bytes), 0)::bigint
FROM pg_stat_statements WHERE userid = '{USER}'::regrole
"""  # noqa: S608  # likewise
_SIZES = f"""
SELECT c.relname, t.relname, pg_relation_size(c.oid),
    CASE WHEN c.relkind = 'i' THEN (bt_metap(c.oid::regclass::text)).level END
FROM pg_class t JOIN pg_class c ON c.oid = t.oid
    OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = t.oid)
WHERE t.relname IN {TABLES} AND t.relkind = 'r' ORDER BY 2, c.relkind DESC, 1
"""  # noqa: S608  # likewise
_CONNECTED = f"SELECT FROM pg_stat_activity WHERE usename = '{USER}'"
_WRITTEN = """
SELECT pg_current_wal_insert_lsn() - '0/0', txid_snapshot_xmax(txid_current_snapshot()),
    sum(n_tup_upd), sum(n_tup_hot_upd), sum(n_tup_ins) FROM pg_stat_user_tables
"""


class Cost(NamedTuple):
    """Blocks of 8 KB looked at and changed, and bytes written to the WAL."""

    blocks: int = 0
    dirtied: int = 0
    wal: int = 0

    def and_also(self, other: Cost) -> Cost:
        """Add another statement's of the same request."""
        return Cost(*map(sum, zip(self, other, strict=True)))


class Relation(NamedTuple):
    """A table or an index."""

    name: str
    table: str
    size: int
    level: int | None
    """Of an index: how far its root is above its leaves."""


class Grown(NamedTuple):
    """What was measured with one number of users."""

    users: int
    costs: dict[tuple[str, str], list[Cost]]
    """By kind and name, one a user or a batch."""
    relations: list[Relation]
    notes: list[str]


class _Meter:
    """Reads what PostgreSQL has counted."""

    def __init__(self, server: Server, database: str) -> None:
        self._connection = server.connect(database)

    def of(self, work: Callable[[], T]) -> tuple[T, Cost]:
        """Do it, and give what all its statements cost."""
        self._connection.run("SELECT pg_stat_statements_reset()")
        result = work()
        (counted,) = self._connection.run(_COUNTED)
        return result, Cost(*map(int, counted))

    def close(self) -> None:
        self._connection.close()


def measure(sizes: Sequence[int]) -> list[Measurement]:
    """Compare the smallest number of users with the greatest, on a server of its own."""
    with running_postgres() as server:
        for name, value in _SETTINGS.items():
            server.run(f"ALTER SYSTEM SET {name} = '{value}'")
        server.restart()
        grown = [_grow(server, users) for users in sizes]
    first, last = grown[0], grown[-1]
    height = _height_ratio(first, last)
    measurements = [
        Measurement(
            name=f"{name}, {last.users:,} / {first.users:,} users",
            unit="blocks",
            floor=[cost.blocks for cost in first.costs[kind, name]],
            ours=[cost.blocks for cost in costs],
            comparison="ratio",
            at_most=height if kind != WHOLE else None,
        )
        for (kind, name), costs in last.costs.items()
    ]
    note = "\n".join(["", *_blocks(grown), "", *_bytes(grown), *_told(grown)])
    return [*measurements[:-1], replace(measurements[-1], note=note)]


def _height_ratio(first: Grown, last: Grown) -> float:
    """Give by what a statement grows that does nothing but descend the index that grew most."""
    levels = {relation.name: relation.level for relation in first.relations}
    return max(
        (relation.level + 1) / ((levels[relation.name] or 0) + 1)
        for relation in last.relations
        if relation.level is not None
    )


def _grow(server: Server, users: int) -> Grown:
    database = f"growth_{users}"
    populate(server, database, users)
    server.run("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pageinspect", database)
    relations = [Relation(*row) for row in server.run(_SIZES, database)]
    try:
        with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder:
            return _measured(server, database, users, relations, Path(folder))
    finally:
        server.run(f"DROP DATABASE {database} WITH (FORCE)")


@contextmanager
def _opened(settings: Settings) -> Iterator[PostgresStore]:
    store = PostgresStore(
        settings.store, settings.database, settings.credentials.session_secrets, sends_mail=True
    )
    try:
        yield store
    finally:
        store.close()


def _measured(
    server: Server, database: str, users: int, relations: list[Relation], folder: Path
) -> Grown:
    patient = {"DATABASE_TIMEOUT": "300", "DATABASE_STATEMENT_TIMEOUT": "300"}
    variables = {
        "SESSION_SECRET": SECRET,
        "DATABASE_URL": server.url(database),
        "USERS_FILE": str(folder / "users.json"),
    }
    meter = _Meter(server, database)
    costs: dict[tuple[str, str], list[Cost]] = {}
    settings = Settings.from_env(variables | patient)
    with _opened(settings) as store:
        while store.clean_up():  # All hours are counted.
            pass
        server.run("VACUUM ANALYZE event_hours", database)
        for number in range(PEOPLE):
            for name, cost in _requests(meter, store, users, number):
                costs.setdefault((REQUESTS, name), []).append(cost)
        for _ in range(BATCHES):
            for name, cost in _idle(meter, store):
                costs.setdefault((UPKEEP, name), []).append(cost)
        notes = [_logins(server, database, store, users)]
        for name, reading in _readings(settings, store).items():
            began = time.monotonic()
            told, cost = meter.of(reading)
            notes.append(f"{name}, {users:,} users: {time.monotonic() - began:.1f} s{told}")
            costs[WHOLE, name] = [cost]
    server.run(_EXPIRE, database)
    server.run("ANALYZE auth_attempts; ANALYZE revoked_sessions", database)
    # Ten days of the audit have to go.
    settings = Settings.from_env(variables | patient | {"AUDIT_DAYS": str(AUDIT_DAYS - 10)})
    with _opened(settings) as store:
        costs[UPKEEP, "clean-up of a full batch"] = [
            _full_batch(meter, store, settings) for _ in range(BATCHES)
        ]
    meter.close()
    return Grown(users, costs, relations, notes)


def _requests(
    meter: _Meter, store: PostgresStore, users: int, number: int
) -> Iterator[tuple[str, Cost]]:
    """Do what requests ask of the store, for users from the middle of the table."""
    middle = (users // 3 + number * users // 50) // 8 * 8
    local, google = Somebody(middle), Somebody(middle + 3)
    home = Client(f"198.51.100.{number}")
    yield from _sign_ins(meter, store, local, google, home)
    yield from _sign_up(meter, store, number)
    yield from _sessions(meter, store, local, home)
    yield from _mails(meter, store, local, home)
    yield from _changes(meter, store, local, home)


def _sign_ins(
    meter: _Meter, store: PostgresStore, local: Somebody, google: Somebody, home: Client
) -> Iterator[tuple[str, Cost]]:
    def begin(email: str) -> tuple[Attempt, Cost]:
        return meter.of(lambda: store.begin_login(email, home))

    for name in ("login from a new network", "login"):
        attempt, begun = begin(local.email)
        _, ended = meter.of(partial(store.end_login, attempt))
        yield name, begun.and_also(ended)
    yield "login, wrong password", begin(local.email)[1]
    yield "login of nobody", begin(f"{local.number}@nobody.org")[1]
    identity = [ExternalIdentity(GOOGLE, google.subject)]
    token = IdToken(str(uuid.uuid4()), 3600)
    found, cost = meter.of(lambda: store.find_external(identity, google.email, token, home))
    assert found is not None
    yield "sign-in with Google", cost


def _sign_up(meter: _Meter, store: PostgresStore, number: int) -> Iterator[tuple[str, Cost]]:
    client = Client(f"192.0.2.{number}")
    user = User(str(uuid.uuid4()), f"{number}@new.org", None, "local")
    _, reserved = meter.of(lambda: store.reserve_sign_up(client))
    _, created = meter.of(
        lambda: store.create_user(user, HASH, client=client, verification="asked")
    )
    yield "sign-up", reserved.and_also(created)


def _sessions(
    meter: _Meter, store: PostgresStore, local: Somebody, home: Client
) -> Iterator[tuple[str, Cost]]:
    session = session_of(local.user, now=time.time())
    yield "renewal of a session", meter.of(lambda: store.user(local.id, sid=session.sid))[1]
    yield "/api/account", meter.of(lambda: store.account(local.id, sid=session.sid))[1]
    yield "logout", meter.of(lambda: store.revoke_session(session, home))[1]


def _mails(
    meter: _Meter, store: PostgresStore, local: Somebody, home: Client
) -> Iterator[tuple[str, Cost]]:
    mail = store.mail
    _, asked = meter.of(
        lambda: mail.ask_for_mail("password_reset", local.email, locale=None, client=home)
    )
    yield "forgotten password", asked
    mails, leased = meter.of(lambda: mail.lease(1))
    _, forgotten = meter.of(partial(mail.delivered, mails[0].id))
    yield "a mail's delivery", leased.and_also(forgotten)


def _changes(
    meter: _Meter, store: PostgresStore, local: Somebody, home: Client
) -> Iterator[tuple[str, Cost]]:
    def begin(user: User) -> tuple[Attempt, Credentials, Cost]:
        session = session_of(user, now=time.time())
        attempt, begun = meter.of(lambda: store.begin_reauthentication(session, home))
        assert attempt.credentials is not None
        return attempt, attempt.credentials, begun

    attempt, as_found, begun = begin(local.user)
    user, changed = meter.of(partial(store.change_password, attempt, as_found, HASH))
    assert user is not None
    yield "change of the password", begun.and_also(changed)
    attempt, as_found, begun = begin(user)
    is_deleted, deleted = meter.of(partial(store.delete_user, attempt, as_found))
    assert is_deleted
    yield "deletion of the account", begun.and_also(deleted)


def _logins(server: Server, database: str, store: PostgresStore, users: int) -> str:
    """Log many in, one after the other, and tell what that costs all of PostgreSQL."""
    before, cpu = _written(server, database, store), server_cpu(server)
    for number in range(LOGINS):
        local = Somebody((users * 2 // 3 + number * users // (4 * LOGINS)) // 8 * 8)
        store.end_login(store.begin_login(local.email, Client(f"203.0.113.{number % 100}")))
    milliseconds = (server_cpu(server) - cpu) * 1000 / LOGINS
    after = _written(server, database, store)
    a_login = ((new - old) / LOGINS for old, new in zip(before, after, strict=True))
    wal, transactions, updates, hot, inserted = a_login
    return (
        f"A login, {users:,} users: {milliseconds:.2f} ms of PostgreSQL's CPU, {wal:,.0f} bytes of "
        f"WAL, {transactions:.1f} transaction ids, {inserted:.1f} rows inserted, {updates:.1f} "
        f"updated, {hot:.1f} of them HOT"
    )


def _written(server: Server, database: str, store: PostgresStore) -> list[int]:
    store.close()  # Its connections tell what they have counted when they end.
    until(lambda: not server.run(_CONNECTED))
    return [*map(int, *server.run(_WRITTEN, database))]


def _idle(meter: _Meter, store: PostgresStore) -> Iterator[tuple[str, Cost]]:
    """Do what the janitor does each minute, where nothing is due."""
    audit_seconds = AUDIT_DAYS * 24 * 60 * 60
    execute = store.database.execute
    _, cost = meter.of(lambda: execute(statements.CLEAN_UP, audit_seconds=audit_seconds))
    yield "clean-up, nothing due", cost
    yield "counting of hours, none due", meter.of(lambda: execute(ROLL_UP, hours=MAX_HOURS))[1]
    yield "look for missing keys", meter.of(lambda: execute(email_keys.IS_PENDING))[1]
    yield "look at the outbox", meter.of(lambda: execute(outbox_sql.STATUS))[1]


def _full_batch(meter: _Meter, store: PostgresStore, settings: Settings) -> Cost:
    """Delete as many rows of each table as one clean-up does."""
    audit_seconds = settings.store.audit_days * 24 * 60 * 60
    ((most,),), cost = meter.of(
        lambda: store.database.execute(statements.CLEAN_UP, audit_seconds=audit_seconds)
    )
    assert int(most) == statements.MAX_DELETED
    return cost


def _readings(settings: Settings, store: PostgresStore) -> dict[str, Callable[[], str]]:
    """Give what reads every user, and tells how it went."""
    snapshot = snapshot_of(settings)

    def take() -> str:
        snapshot.take(store.database, time.time())
        return f", {settings.store.snapshot_file.stat().st_size:,} bytes"

    def count() -> str:
        store.statistics(Window(30, time.time()))
        return ""

    return {"statistics of 30 days": count, "snapshot": take}


def _blocks(grown: Sequence[Grown]) -> Iterator[str]:
    yield (
        "Blocks looked at, by users"
        + "".join(f"{part.users:>12,}" for part in grown)
        + ("     changed   bytes of WAL")
    )
    for key, last in grown[-1].costs.items():
        medians = (statistics.median(cost.blocks for cost in part.costs[key]) for part in grown)
        dirtied = statistics.median(cost.dirtied for cost in last)
        wal = statistics.median(cost.wal for cost in last)
        blocks = "".join(f"{median:>12,.0f}" for median in medians)
        yield f"{key[1]:<27}{blocks}{dirtied:>12,.0f}{wal:>15,.0f}"


def _bytes(grown: Sequence[Grown]) -> Iterator[str]:
    yield "Bytes a user, and the index's levels above its leaves" + "".join(
        f"{part.users:>16,}" for part in grown
    )
    for place, relation in enumerate(grown[-1].relations):
        cells = []
        for part in grown:
            same = part.relations[place]
            level = "" if same.level is None else f" ({same.level})"
            cells.append(f"{same.size / part.users:>12.1f}{level:>4}")
        yield f"{relation.table + '.' + relation.name:<53}" + "".join(cells)
    totals = (sum(relation.size for relation in part.relations) / part.users for part in grown)
    yield f"{'all':<53}" + "".join(f"{total:>12.1f}    " for total in totals)


def _told(grown: Sequence[Grown]) -> Iterator[str]:
    for part in grown:
        yield from part.notes
