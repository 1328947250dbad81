"""Applies `migrations/*.sql` in order: each file in one transaction, under a lock, recorded.

What `plan` prints is what `apply_pending` runs.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from shared.database import sql_script, sqlstate
from shared.database.connection import LIFT_LIMITS, STATEMENT_GRACE, Connection, ConnectionLost, Row
from shared.database.pool import Database
from shared.errors import StoreFault, StoreRefused, StoreTimeout, StoreUnavailable
from shared.observe import log

FOLDER = Path(__file__).resolve().parents[2] / "migrations"
LOCK_KEY = 4_101_202_611
"""The advisory lock that all instances agree on; transaction-level, so that poolers allow it."""
LOCK_TIMEOUT = "1s"
"""How long a migration waits for a table before it gives way to those who use it."""

_FILE = re.compile(r"(\d{4})_\w+\.sql")
_TRANSACTION_CONTROL = re.compile(
    r"(BEGIN|START|COMMIT|END|ABORT|ROLLBACK(?!.*\bTO\b)|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)

State = Literal["applied", "pending", "edited", "unknown"]
Step = Callable[[Connection, float], None]
"""What is done on a connection before a reading of `time.monotonic()`."""


@dataclass(frozen=True, slots=True)
class Migration:
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


@dataclass(frozen=True, slots=True)
class Status:
    """How the database and this code see one migration.

    `edited` is a file that was changed after it had been applied, and `unknown` one that the
    database has and this code has not, because the code is older. `applied_at` is in UTC.
    """

    name: str
    state: State
    applied_at: datetime | None


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
    connection: Connection,
    deadline: float,
    *,
    apply: bool,
    before: Mapping[int, Step] = MappingProxyType({}),
) -> None:
    """Bring the schema up to date, in one round trip where it is already.

    Raises StoreUnavailable where a migration is pending and may not be applied, fails, or was
    edited after it had been applied. Versions that this code doesn't know are left alone:
    migrations only expand, so that the previous code runs on a newer schema.
    """
    try:
        recorded = _recorded(connection)
    except StoreFault as error:
        if error.sqlstate != sqlstate.UNDEFINED_TABLE:
            raise
        recorded = {}
    pending = _pending(load(), recorded)
    if not pending:
        return
    names = ", ".join(migration.name for migration in pending)
    if not apply:
        raise StoreRefused(
            cause=f"the database lacks {names}; AUTO_MIGRATE is off, so run `make migrate-schema`"
        )
    with database.direct_connection(deadline) as direct:
        try:
            apply_pending(direct, deadline, before=before)
        except StoreTimeout as error:
            raise StoreTimeout(
                cause=f"{error.cause}; if it takes longer than a request may, run "
                "`make migrate-schema`"
            ) from error


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


def plan(connection: Connection, patience: float) -> str:
    """Write what `apply_pending` would run, given so many seconds, as a psql script. Only reads.

    Raises StoreRefused where `apply_pending` would refuse to begin.
    """
    pending = _pending(load(), _recorded_if_any(connection))
    if not pending:
        return "-- Nothing is pending.\n"
    script = "\\set ON_ERROR_STOP on\n"
    for migration in pending:
        sql = migration.sql.rstrip()
        end = "" if sql.endswith(";") else "\n;"  # A file's last statement may do without.
        script += (
            f"\n-- migrations/{migration.name}\n{_opening(patience)}\n"
            f"{sql}{end}\n\n{_closing(migration)}"
        )
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

    `before` has, by a file's version, what must be done in Python before that file is applied.

    Raises StoreUnavailable where a file fails: its cause names the file, and the line where it is
    known. Of that file nothing is left, and those before it are applied.
    """
    for migration in _pending(load(), _recorded_if_any(connection)):
        if step := before.get(migration.version):
            step(connection, deadline)
        if _apply(connection, migration, deadline):
            report(migration.name)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _recorded(connection: Connection) -> dict[int, Row]:
    rows = connection.execute("SELECT version, checksum, name, applied_at FROM schema_migrations")
    return {row[0]: row for row in rows}


def _recorded_if_any(connection: Connection) -> dict[int, Row]:
    """Ask first, because the error of a missing table would end the caller's transaction."""
    if connection.execute("SELECT to_regclass('schema_migrations')") == [[None]]:
        return {}
    return _recorded(connection)


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
    for start in sql_script.starts(migration.sql):
        if match := _TRANSACTION_CONTROL.match(migration.sql, start):
            line = sql_script.line_at(migration.sql, start)
            raise StoreRefused(
                cause=f"migrations/{migration.name}, line {line}: {match[0]} has no place in a "
                "file, which is one transaction already"
            )


def _opening(seconds: float) -> str:
    # The server gives up by itself, so that nobody waits for a lock whose holder has gone.
    return f"""\
BEGIN;
{LIFT_LIMITS};
SET LOCAL client_connection_check_interval = '1s';
SET LOCAL statement_timeout = {max(1, int(seconds * 1000))};
SELECT pg_advisory_xact_lock({LOCK_KEY});
SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


def _closing(migration: Migration) -> str:
    return f"""\
INSERT INTO schema_migrations (version, name, checksum)
VALUES ({migration.version}, '{migration.name}', '{migration.checksum}');
COMMIT;
"""  # noqa: S608  # neither a name, by its pattern, nor a checksum can hold a quote


def _apply(connection: Connection, migration: Migration, deadline: float) -> bool:
    """Apply one file, unless another instance did while this one waited for the lock."""
    _run(connection, migration, _opening(deadline - time.monotonic() - STATEMENT_GRACE))
    if not _pending([migration], _recorded(connection)):
        connection.run_script("ROLLBACK")
        return False
    _run(connection, migration, migration.sql)
    # By itself, so that nothing is committed whose sender has gone.
    _run(connection, migration, _closing(migration))
    return True


def _run(connection: Connection, migration: Migration, script: str) -> None:
    """Run the file, or what stands around it, and say where it failed."""
    try:
        connection.run_script(script)
    except (ConnectionLost, StoreFault, StoreUnavailable) as error:
        fault = error.error if isinstance(error, ConnectionLost) else error
        place = ""
        # From a lost connection answers may be missing, and the count of them would mislead.
        if script is migration.sql and not isinstance(error, ConnectionLost):
            line = sql_script.line_of_error(script, connection.completed, connection.position)
            place = f", line {line}" if line else ""
        kind = type(fault) if isinstance(fault, StoreUnavailable) else StoreRefused
        raise kind(cause=f"migrations/{migration.name}{place}: {fault}") from error
