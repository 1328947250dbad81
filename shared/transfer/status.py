"""What was imported, when and by whom, and what was rolled back."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from shared.database.pool import Database
from shared.formats.timestamps import to_iso
from shared.transfer import access, batches
from shared.transfer.batches import Batch
from shared.transfer.steps import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How many users there are, and every import."""

    users: int
    batches: list[Batch]

    def to_json(self) -> dict[str, object]:
        """Give it with its times in ISO 8601."""
        listed = [
            asdict(batch)
            | {
                "applied_at": to_iso(batch.applied_at),
                "rolled_back_at": batch.rolled_back_at and to_iso(batch.rolled_back_at),
            }
            for batch in self.batches
        ]
        return {"users": self.users, "batches": listed}


def status(database: Database) -> Status:
    """Read it, in a read-only transaction. Raises StoreUnavailable and TransferRefused."""
    with transaction(database, write=None, seconds=database.timeout, foresee=True) as connection:
        tables = access.readable(connection, "users", "import_batches")
        return Status(
            users=0 if "users" in tables.lacking else batches.count_users(connection),
            batches=[] if "import_batches" in tables.lacking else batches.batches(connection),
        )
