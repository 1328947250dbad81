"""What the command line calls the outcomes of a transfer."""

from __future__ import annotations

from shared.formats.timestamps import to_iso
from shared.transfer import pending_sign_ups, rollback, staging, time_doubts
from shared.transfer.batches import Batch
from shared.transfer.importing import Plan

_REJECTED = {
    staging.INVALID: "rejected: not valid users",
    staging.DUPLICATE: "rejected: same address, id or identity as another row",
    staging.EMAIL_TAKEN: "rejected: the address belongs to another user in Postgres",
    staging.IDENTITY_TAKEN: "rejected: an identity belongs to another user in Postgres",
    staging.ID_TAKEN: "rejected: the id belongs to a user with another address in Postgres",
}
_THERE = {
    staging.IDENTICAL: "equal in Postgres and the source",
    staging.KEPT: "changed in Postgres, or never imported; Postgres wins",
    staging.ALTERED: "different in Postgres without a recorded update; unchanged",
    staging.DELETED: "imported before, then deleted from Postgres; not imported again",
}
PLANNED = {
    staging.NEW: "new, to be written",
    staging.CHANGED: "changed in the source, to be written",
} | _THERE | _REJECTED  # fmt: skip
APPLIED = {
    staging.NEW: "new, written",
    staging.CHANGED: "changed in the source, written",
} | _THERE | _REJECTED  # fmt: skip
VERIFIED = {
    staging.NEW: "missing in Postgres",
    staging.CHANGED: "changed in the source since the import: apply again",
} | _THERE | _REJECTED  # fmt: skip
RECONCILED = {
    pending_sign_ups.CREATED: "written to Postgres",
    pending_sign_ups.PRESENT: "already in Postgres",
    pending_sign_ups.EMAIL_TAKEN: "in the quarantine: another user has the address",
    pending_sign_ups.ID_TAKEN: "in the quarantine: another user has the id",
    pending_sign_ups.INVALID: "in the quarantine: edited and no longer valid",
    pending_sign_ups.REFUSED: "still pending: refused by the database",
}
_DOUBTFUL_TIMES = {
    time_doubts.BEFORE_1990: "have a time before 1990",
    time_doubts.IN_THE_FUTURE: "have a time in the future",
    time_doubts.NO_OFFSET: "have a time without an offset, which is read as UTC",
}
ROLLED_BACK = {
    rollback.REMOVED: "removed",
    rollback.RESTORED: "restored to their previous state",
    staging.KEPT: "kept: changed since the import, or the old address is taken",
    rollback.GONE: "already deleted",
    rollback.SIGNED_UP: "kept: signed up after the import",
}


def plan_rows(found: Plan, meanings: dict[str, str]) -> list[tuple[str, object, str]]:
    """Give the lines of a table of what becomes of a source's rows, by PLANNED or the like."""
    always = (staging.NEW, staging.CHANGED, staging.IDENTICAL)
    rows: list[tuple[str, object, str]] = [
        (verdict.replace("_", " "), number, meanings[verdict])
        for verdict, number in found.counts.items()
        if number or verdict in always
    ]
    if found.absent:
        rows.append(
            (
                "absent",
                found.absent,
                "imported before, not in the source; unchanged",
            )
        )
    rows += [
        (f"“{name}”", number, "have this member, which is not imported")
        for name, number in found.unknown_members.items()
    ]
    rows += [
        ("odd time", doubt["rows"], f"{_DOUBTFUL_TIMES[name]} (the first: row {doubt['first']:,})")
        for name, doubt in found.doubtful_times.items()
    ]
    return rows


def batch_row(batch: Batch) -> tuple[str, object, str]:
    """Give the line of a table of imports."""
    written = batch.counts[staging.NEW] + batch.counts[staging.CHANGED]
    history = f"users written by {batch.run_by} at {to_iso(batch.applied_at)}"
    if batch.rolled_back_at:
        history += f", rolled back by {batch.rolled_back_by} at {to_iso(batch.rolled_back_at)}"
    return batch.id, written, history
