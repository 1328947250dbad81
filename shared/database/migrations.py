"""Applies `migrations/*.sql` in order: what is pending in one transaction, under a lock, recorded.

Only a step that Python does in between makes two transactions of it. What `plan` prints is what
`apply_pending` runs.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.database.pool import Database
from shared.database.session import LIFT_LIMITS, STATEMENT_GRACE, Row, Session
from shared.errors import StoreFault, StoreRefused, StoreTimeout, StoreUnavailable, StoreUnreachable
from shared.observe import log

FOLDER = Path(__file__).resolve().parents[2] / "migrations"
LOCK_KEY = 4_101_202_611
"""The advisory lock that all instances agree on; transaction-level, so that poolers allow it."""
LOCK_TIMEOUT = "1s"
"""How long a migration waits for a table before it gives way to those who use it."""

_FILE = re.compile(r"(\d{4})_\w+\.sql")
_TRANSACTION_CONTROL = (
    r"(?i)(BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!.*\bTO\b)|PREPARE\s+TRANSACTION)\b"
)
_RECORDED_IN = """
SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'schema_migrations' AND n.nspname = pg_catalog.current_schema()
"""

_EFFECTIVE_SCHEMA = "SELECT pg_catalog.current_schema()"

State = Literal["applied", "pending", "edited", "unknown"]
Step = Callable[[Connection, float], None]
"""What is done on a connection before a reading of `time.monotonic()`."""
Check = Callable[[Connection], None]
"""Looks at a database and raises StoreUnavailable where it must not be migrated."""


class Migration(NamedTuple):
    """One file, with LF as line ends, whatever a checkout has made of them."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the text, in hexadecimal."""
        return _checksum(self.sql)

    def is_recorded_as(self, checksum: str) -> bool:
        """Tell whether a recorded checksum is this file's; older releases took it with CRLF."""
        return checksum == self.checksum or checksum == _checksum(self.sql.replace("\n", "\r\n"))


class Status(NamedTuple):
    """How the database and this code see one migration.

    `edited` is a file that was changed after it had been applied, and `unknown` one that the
    database has and this code has not, because the code is older. `applied_at` is in UTC, or
    PostgreSQL's text of a time that no datetime holds.
    """

    name: str
    state: State
    applied_at: datetime | str | None


def load(folder: Path = FOLDER) -> list[Migration]:
    """Read the migrations in the order of their versions. Raises StoreRefused."""
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if not match:
            raise StoreRefused(cause=f"migrations/{path.name} is not named like 0001_name.sql")
        sql = path.read_bytes().decode().replace("\r\n", "\n")
        migrations.append(Migration(int(match[1]), path.name, sql))
    if not migrations or len({m.version for m in migrations}) < len(migrations):
        raise StoreRefused(cause=f"{folder} holds no migrations, or one version twice")
    return migrations


def prepare(
    database: Database,
    connection: Session,
    deadline: float,
    *,
    apply: bool,
    check: Check,
    before: Mapping[int, Step] = MappingProxyType({}),
    after: Step | None = None,
) -> None:
    """Bring the schema up to date, in one round trip where it is already.

    `after` is done at the end where something was applied; see `apply_pending` for `before`.

    Raises StoreUnavailable where a migration is pending and may not be applied, fails, or was
    edited after it had been applied, and what `check` raises. Versions that this code doesn't know
    are left alone: migrations only expand, so that the previous code runs on a newer schema.
    """
    recorded: dict[int, Row] = {}
    try:
        recorded = _recorded(connection)
    except (StoreFault, StoreRefused) as error:
        if not isinstance(error, StoreFault) or error.sqlstate != sqlstate.UNDEFINED_TABLE:
            with suppress(ConnectionLost, StoreUnreachable):  # It may know why.
                if isinstance(connection, Connection):
                    check(connection)
                else:  # Over HTTP there is no transaction to look in.
                    with database.direct_connection(deadline) as direct:
                        check(direct)
            raise
    pending = _pending(load(), recorded)
    if not pending:
        return
    with database.direct_connection(deadline) as direct:
        _require_same_schema(connection, direct)
        check(direct)
        if not apply:
            names = ", ".join(migration.name for migration in pending)
            raise StoreRefused(
                cause=f"the database lacks {names}; AUTO_MIGRATE is off, so run "
                "`make migrate-schema`"
            )
        try:
            apply_pending(direct, deadline, before=before)
            if after:
                after(direct, deadline)
        except StoreTimeout as error:
            raise StoreTimeout(
                cause=f"{error.cause}; if it takes longer than a request may, run "
                "`make migrate-schema`"
            ) from error


def _require_same_schema(served: Session, direct: Session) -> None:
    """Raise StoreRefused where requests would not find what is made past their pooler."""
    ((theirs,),), ((ours,),) = (it.execute(_EFFECTIVE_SCHEMA) for it in (served, direct))
    if theirs != ours:
        raise StoreRefused(
            cause=f"requests are served from the schema {theirs}, but past the pooler, where "
            f"migrations are applied, it is {ours}: remove search_path from the pooler and from "
            "options in DATABASE_URL, and set it for both with ALTER ROLE … SET search_path = …"
        )


def status(connection: Connection) -> list[Status]:
    """Compare the files with what the database recorded, in the order of versions. Only reads."""
    recorded = _recorded_if_any(connection)
    found = {}
    for migration in load():
        state: State = "pending"
        applied_at = None
        if migration.version in recorded:
            _, checksum, _, applied_at = recorded.pop(migration.version)
            state = "applied" if migration.is_recorded_as(checksum) else "edited"
        found[migration.version] = Status(migration.name, state, applied_at)
    for version, _, name, applied_at in recorded.values():
        found[version] = Status(name, "unknown", applied_at)
    return [found[version] for version in sorted(found)]


def plan(connection: Connection, patience: float, breaks: Container[int] = ()) -> str:
    """Write what `apply_pending` would run, given so many seconds, as a psql script. Only reads.

    `breaks` has the versions before which a transaction ends. Raises StoreRefused where
    `apply_pending` would refuse to begin.
    """
    pending = _pending(load(), _recorded_if_any(connection))
    if not pending:
        return "-- Nothing is pending.\n"
    script = "\\set ON_ERROR_STOP on\n"
    for group in _groups(pending, breaks):
        script += f"\n{_opening(patience)}"
        for migration in group:
            sql = migration.sql.rstrip()
            end = "" if sql.endswith(";") else "\n;"  # A file's last statement may do without.
            script += f"\n-- migrations/{migration.name}\n{sql}{end}\n\n{_record(migration)}"
        script += "COMMIT;\n"
    return script


def log_applied(name: str) -> None:
    """Report a migration as a line of the log."""
    log.write("INFO", "Applied a migration", migration=name)


def apply_pending(
    connection: Connection,
    deadline: float,
    report: Callable[[str], None] = log_applied,
    before: Mapping[int, Step] = MappingProxyType({}),
) -> None:
    """Apply what is pending, before a reading of `time.monotonic()`; `report` gets each name.

    `before` has, by a file's version, what must be done in Python before that file is applied. A
    transaction ends there, and is else one for all.

    Raises StoreUnavailable where a file fails: its cause names the file, and the line where it is
    known. Of the transaction nothing is left.
    """
    for group in _groups(_pending(load(), _recorded_if_any(connection)), before):
        if step := before.get(group[0].version):
            step(connection, deadline)
        for migration in _apply(connection, group, deadline):
            report(migration.name)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _recorded(connection: Session, schema: str = "") -> dict[int, Row]:
    """Read what is recorded. Raises StoreRefused where it was recorded by another tool."""
    columns = "version, checksum, name, applied_at"
    rows = connection.execute(f"SELECT {columns} FROM {schema}schema_migrations")  # noqa: S608  # quoted
    if not all(isinstance(version, int) for version, *_ in rows):
        raise StoreRefused(cause="schema_migrations is another tool's")
    return {row[0]: row for row in rows}


def _recorded_if_any(connection: Connection) -> dict[int, Row]:
    """Ask first, because the error of a missing table would end the caller's transaction.

    What another schema of the search path has is not what will be written to.
    """
    found = connection.execute(_RECORDED_IN)
    return _recorded(connection, f"{found[0][0]}.") if found else {}


def _groups(pending: Sequence[Migration], breaks: Container[int]) -> list[list[Migration]]:
    """Part migrations into those that are applied in one transaction each."""
    groups: list[list[Migration]] = []
    for migration in pending:
        if not groups or migration.version in breaks:
            groups.append([])
        groups[-1].append(migration)
    return groups


def _pending(migrations: Sequence[Migration], recorded: dict[int, Row]) -> list[Migration]:
    pending = []
    for migration in migrations:
        if migration.version not in recorded:
            _refuse_transaction_control(migration)
            pending.append(migration)
        elif not migration.is_recorded_as(recorded[migration.version][1]):
            raise StoreRefused(
                cause=f"migrations/{migration.name} was edited after it had been applied; "
                "restore it and put the change into a new file"
            )
    return pending


def _refuse_transaction_control(migration: Migration) -> None:
    """Refuse what would make more than one transaction of a file."""
    from shared.database import sql_script  # Only for what is pending.

    control = re.compile(_TRANSACTION_CONTROL)
    for start in sql_script.starts(migration.sql):
        if match := control.match(migration.sql, start):
            line = sql_script.line_at(migration.sql, start)
            raise StoreRefused(
                cause=f"migrations/{migration.name}, line {line}: {match[0]} has no place in a "
                "file, which is one transaction already"
            )


def _opening(seconds: float) -> str:
    # Who has waited for the lock has to see what its holder did, whatever the role's default is.
    # The server gives up by itself, so that nobody waits for a lock whose holder has gone.
    return f"""\
BEGIN ISOLATION LEVEL READ COMMITTED;
{LIFT_LIMITS};
SET LOCAL client_connection_check_interval = '1s';
SET LOCAL statement_timeout = {max(1, int(seconds * 1000))};
SELECT pg_advisory_xact_lock({LOCK_KEY});
SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
SET CONSTRAINTS ALL IMMEDIATE;
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


def _record(migration: Migration) -> str:
    return f"""\
INSERT INTO schema_migrations (version, name, checksum)
VALUES ({migration.version}, '{migration.name}', '{migration.checksum}');
"""  # noqa: S608  # neither a name, by its pattern, nor a checksum can hold a quote


def _apply(connection: Connection, group: Sequence[Migration], deadline: float) -> list[Migration]:
    """Apply some files, but for those that another instance applied while this one waited."""
    _run(connection, group[0], _opening(deadline - time.monotonic() - STATEMENT_GRACE))
    pending = _pending(group, _recorded(connection))
    for migration in pending:
        _run(connection, migration, migration.sql)
        _run(connection, migration, _record(migration))
    # By itself, so that nothing is committed whose sender has gone.
    _run(connection, group[-1], "COMMIT" if pending else "ROLLBACK")
    return pending


def _run(connection: Connection, migration: Migration, script: str) -> None:
    """Run the file, or what stands around it, and say where it failed."""
    try:
        connection.run_script(script)
    except (ConnectionLost, StoreFault, StoreUnavailable) as error:
        fault = error.error if isinstance(error, ConnectionLost) else error
        place = ""
        # From a lost connection answers may be missing, and the count of them would mislead.
        if script is migration.sql and not isinstance(error, ConnectionLost):
            from shared.database import sql_script

            line = sql_script.line_of_error(script, connection.completed, connection.position)
            place = f", line {line}" if line else ""
        detail = f" ({connection.detail})" if connection.detail else ""
        kind = type(fault) if isinstance(fault, StoreUnavailable) else StoreRefused
        raise kind(cause=f"migrations/{migration.name}{place}: {fault}{detail}") from error
