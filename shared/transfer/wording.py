"""What the command line calls the outcomes of a transfer."""

from __future__ import annotations

from shared.formats.timestamps import to_iso
from shared.transfer import operations, rollback, staging
from shared.transfer.batches import Batch
from shared.transfer.importing import Plan

_REJECTED = {
    staging.INVALID: "rejected: not users that can be brought over",
    staging.DUPLICATE: "rejected: the address, the id or an identity of another row",
    staging.EMAIL_TAKEN: "rejected: another user in Postgres has the email",
    staging.IDENTITY_TAKEN: "rejected: another user in Postgres has an identity",
    staging.ID_TAKEN: "rejected: a user with another email in Postgres has the id",
}
_THERE = {
    staging.IDENTICAL: "in Postgres as in the source",
    staging.KEPT: "changed in Postgres, or not brought by an import; Postgres wins",
    staging.ALTERED: "differ in Postgres, where nothing says that they were updated; left alone",
    staging.DELETED: "imported before and gone from Postgres; they stay gone",
}
PLANNED = {
    staging.NEW: "new, to be written",
    staging.CHANGED: "changed in the source, to be brought",
} | _THERE | _REJECTED  # fmt: skip
APPLIED = {
    staging.NEW: "new, written",
    staging.CHANGED: "changed in the source, brought",
} | _THERE | _REJECTED  # fmt: skip
VERIFIED = {
    staging.NEW: "missing in Postgres",
    staging.CHANGED: "changed in the source since the import: apply again",
} | _THERE | _REJECTED  # fmt: skip
RECONCILED = {
    operations.CREATED: "brought to Postgres",
    operations.PRESENT: "in Postgres already",
    operations.EMAIL_TAKEN: "in the quarantine: another user has the address",
    operations.ID_TAKEN: "in the quarantine: another user has the id",
    operations.INVALID: "in the quarantine: edited, and no users any more",
}
ROLLED_BACK = {
    rollback.REMOVED: "removed again",
    rollback.RESTORED: "as they were before",
    staging.KEPT: "changed since the import, or their old address is taken; kept",
    rollback.GONE: "were gone already",
    rollback.SIGNED_UP: "signed up after the import, kept",
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
                "imported before, not among the rows that can be read; they stay",
            )
        )
    rows += [
        (f"“{name}”", number, "have this member, which has no column and stays behind")
        for name, number in found.unknown_members.items()
    ]
    return rows


def batch_row(batch: Batch) -> tuple[str, object, str]:
    """Give the line of a table of imports."""
    written = batch.counts[staging.NEW] + batch.counts[staging.CHANGED]
    history = f"users written by {batch.run_by} at {to_iso(batch.applied_at)}"
    if batch.rolled_back_at:
        history += f", rolled back by {batch.rolled_back_by} at {to_iso(batch.rolled_back_at)}"
    return batch.id, written, history
