"""Takes an import back, without taking anything from those who came or changed after it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from shared.database.connection import Connection
from shared.database.pool import Database
from shared.errors import StoreFault, TransferRefused
from shared.transfer import batches, staging
from shared.transfer.steps import Event, Outcome, Progress, Ready, commit, transaction

_FOREIGN_KEY_VIOLATION = "23503"
_REASONS = {
    staging.KEPT: "It has changed since, or its old address or identity is another's now: kept.",
    batches.GONE: "It was gone from Postgres already.",
    batches.SIGNED_UP: "It signed up after the import, and is kept.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """How many users of the batch were removed, restored, kept or gone, and who came later."""

    batch: str
    counts: dict[str, int]


def roll_back(
    database: Database, batch_id: str, *, run_by: str
) -> Generator[Event, None, RolledBack]:
    """Take a batch back: remove whom it brought, restore whom it changed.

    Kept, and named, is everyone who has changed since, or signed up. Raises StoreUnavailable, and
    TransferRefused for a batch that isn't there, is rolled back already, or was written over by a
    later one, and where another table refers to its users.
    """

    def is_done(fresh: Connection) -> bool:
        found = batches.find(fresh, batch_id)
        return found is not None and found[1] is not None

    with transaction(database, write=True) as connection:
        staging.lock(connection)
        found = batches.find(connection, batch_id)
        if found is None:
            raise TransferRefused(f"There is no batch {batch_id}; `status` lists them.")
        number, rolled_back_at = found
        if rolled_back_at is not None:
            raise TransferRefused(f"Batch {batch_id} was rolled back at {rolled_back_at}.")
        yield Progress("write")
        try:
            counts = batches.roll_back(connection, number, run_by)
        except StoreFault as error:
            if error.sqlstate != _FOREIGN_KEY_VIOLATION:
                raise
            raise TransferRefused(
                "Another table refers to users of this batch, so they stay: nothing was changed."
            ) from error
        for verdict, user_id, email in batches.outcomes(connection):
            yield Outcome(verdict, _REASONS[verdict], user_id=user_id, email=email)
        yield Ready()
        commit(database, connection, is_done)
    return RolledBack(batch=batch_id, counts=counts)
