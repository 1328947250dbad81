"""The imports that were committed, as Postgres lists them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.database.connection import Connection


@dataclass(frozen=True, slots=True)
class Batch:
    """One import that was committed: who brought what, and whether it was taken back."""

    id: str
    applied_at: datetime | str
    """As `to_iso` takes it; so is `rolled_back_at`."""
    run_by: str
    counts: dict[str, int]
    """Rows by verdict."""
    plan_sha256: str
    source_sha256: str
    users_sha256: str
    rolled_back_at: datetime | str | None
    rolled_back_by: str | None


_BATCHES = """
SELECT id, applied_at, run_by, counts, plan_sha256, source_sha256, users_sha256,
       rolled_back_at, rolled_back_by
FROM import_batches ORDER BY number
"""
_BATCH = "SELECT number, rolled_back_at FROM import_batches WHERE id = :id"


def batches(connection: Connection) -> list[Batch]:
    """Give the batches in their order."""
    return [Batch(*row) for row in connection.execute(_BATCHES)]


def find(connection: Connection, batch_id: str) -> tuple[int, datetime | str | None] | None:
    """Give a batch's number and when it was rolled back, if it was."""
    found = connection.execute(_BATCH, id=batch_id)
    return (int(found[0][0]), found[0][1]) if found else None


def count_users(connection: Connection) -> int:
    """Count all users."""
    return int(connection.execute("SELECT count(*) FROM users")[0][0])
