"""Looks at a database before anything is changed in it, and says what stands in the way.

It only reads, from the system catalogs.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.database.connection import Connection

_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass('users') AND a.attnum > 0 AND NOT a.attisdropped
"""
_OLD = {
    "id": "uuid",
    "email": "character varying(255)",
    "password": "character varying(255)",
    "name": "character varying(255)",
    "provider": "character varying(50)",
}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way of a migration, or of serving requests."""

    object: str
    """Its name, such as `table users`."""
    problem: str
    """What is wrong with it, in a sentence."""
    remedy: str
    """What to do, in a sentence."""

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}"


def obstacles(connection: Connection) -> list[Obstacle]:
    """Look, in a read-only transaction of its own, and give what was found; nothing if all is well.

    Raises StoreUnavailable and StoreFault.
    """
    connection.run_script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        held = dict(map(tuple, connection.execute(_COLUMNS)))
    finally:
        connection.run_script("ROLLBACK")
    if not held:
        return []
    return [
        Obstacle(
            "table users",
            f"users is not the old server's table: {name} is "
            f"{held.get(name, 'missing')}, not {kind}.",
            "Rename it, or give this service a schema of its own.",
        )
        for name, kind in _OLD.items()
        if held.get(name) != kind
    ]
