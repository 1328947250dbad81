"""Applies `migrations/*.sql` in order: each file in one transaction, under a lock, recorded."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared import log
from shared.connection import Connection
from shared.database import Database
from shared.errors import StoreFault, StoreRefused

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
LOCK_KEY = 4_101_202_611
"""The advisory lock that all instances agree on; transaction-level, so that poolers allow it."""
LOCK_TIMEOUT = "1s"
"""How long a migration waits for a table before it gives way to those who use it."""

_FILE = re.compile(r"(\d{4})_\w+\.sql")
_UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `checksum` is the SHA-256 of its bytes, in hexadecimal."""

    version: int
    name: str
    sql: str
    checksum: str


def load(folder: Path = FOLDER) -> list[Migration]:
    """Read the migrations in the order of their versions. Raises StoreRefused."""
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if not match:
            raise StoreRefused(cause=f"migrations/{path.name} is not named like 0001_name.sql")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        migrations.append(Migration(int(match[1]), path.name, data.decode(), digest))
    if not migrations or len({m.version for m in migrations}) < len(migrations):
        raise StoreRefused(cause=f"{folder} holds no migrations, or one version twice")
    return migrations


def prepare(database: Database, connection: Connection, deadline: float, *, apply: bool) -> bool:
    """Bring the schema up to date, on one round trip where it is already; tell if that took more.

    Raises StoreRefused where a migration is pending and may not be applied, fails, or was edited
    after it had been applied. Versions that this code doesn't know are left alone: migrations
    only expand, so that the previous code runs on a newer schema.
    """
    migrations = load()
    pending = _pending(migrations, _applied(connection))
    if not pending:
        return False
    names = ", ".join(migration.name for migration in pending)
    if not apply:
        raise StoreRefused(
            cause=f"the database lacks {names}; AUTO_MIGRATE is off, so run `make migrate-schema`"
        )
    with database.direct_connection(deadline) as direct:
        for migration in pending:
            if _apply(direct, migration, deadline):
                log.write("INFO", "Applied a migration", migration=migration.name)
    return True


def _applied(connection: Connection) -> dict[int, str]:
    try:
        rows = connection.execute("SELECT version, checksum FROM schema_migrations")
    except StoreFault as error:
        if error.sqlstate != _UNDEFINED_TABLE:
            raise
        return {}
    return {int(version): str(checksum) for version, checksum in rows}


def _pending(migrations: Sequence[Migration], applied: dict[int, str]) -> list[Migration]:
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise StoreRefused(
                cause=f"migrations/{migration.name} was edited after it had been applied; "
                "restore it and put the change into a new file"
            )
    return [migration for migration in migrations if migration.version not in applied]


def _apply(connection: Connection, migration: Migration, deadline: float) -> bool:
    """Apply one file, unless another instance did while this one waited for the lock."""
    milliseconds = max(1, int((deadline - time.monotonic()) * 1000))
    connection.run_script(
        # The server gives up by itself, so that nobody waits for a lock after his client has gone.
        f"BEGIN; SET LOCAL statement_timeout = {milliseconds}; "
        f"SELECT pg_advisory_xact_lock({LOCK_KEY}); SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; "
        "CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY, "
        "name TEXT NOT NULL, checksum TEXT NOT NULL, "
        "applied_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    if not _pending([migration], _applied(connection)):
        connection.run_script("ROLLBACK")
        return False
    try:
        connection.run_script(migration.sql)
    except StoreFault as error:
        line = ""
        if error.position:
            line = f", line {migration.sql.count(chr(10), 0, error.position - 1) + 1}"
        raise StoreRefused(cause=f"migrations/{migration.name}{line}: {error}") from error
    connection.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
        str(migration.version),
        migration.name,
        migration.checksum,
    )
    connection.run_script("COMMIT")
    return True
