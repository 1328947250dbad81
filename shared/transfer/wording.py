"""What the command line calls the outcomes of a transfer, and its own commands and options."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

from shared.formats.counts import count
from shared.formats.timestamps import to_iso
from shared.transfer import losses, pending_sign_ups, rollback, staging, time_doubts
from shared.transfer.batches import Batch
from shared.transfer.importing import Plan
from shared.transfer.rollback import RolledBack

TARGETS = {
    "plan": "migrate-dry-run",
    "backup": "migrate-backup",
    "apply": "migrate",
    "verify": "migrate-verify",
    "status": "migrate-status",
    "rollback": "migrate-rollback",
    "reconcile": "migrate-reconcile",
    "invite": "migrate-invite",
    "snapshot": "snapshot",
    "export": "export",
    "schema status": "migrate-schema-status",
    "schema plan": "migrate-schema-plan",
    "schema apply": "migrate-schema",
}
"""make's target of each action."""
_QUOTED = re.compile(r"`([^`]+)`")

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
    staging.CHANGED: "changed in the source since the import",
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
_LOSSES = {
    losses.ADDRESS: ("address changed", "have another address than the user of that id had"),
    losses.PASSWORD: ("loses password", "changed, and without the password that they have here"),
    losses.IDENTITY: ("loses identity", "changed, and without an identity that they have here"),
    losses.FACTOR: ("loses factor", "changed, and without the second factor that they have here"),
}
_ASKED = {
    losses.ADDRESS: "with another address",
    losses.PASSWORD: "without their password",
    losses.IDENTITY: "without an identity that they had",
    losses.FACTOR: "without their second factor",
}
TO_ROLL_BACK = {
    rollback.REMOVED: "go: the import brought them",
    rollback.RESTORED: "go back to their previous state",
    staging.KEPT: "stay: changed since the import, or the old address is taken",
    rollback.GONE: "already deleted",
    rollback.SIGNED_UP: "stay: signed up after the import",
}
ROLLED_BACK = {
    rollback.REMOVED: "removed",
    rollback.RESTORED: "restored to their previous state",
    staging.KEPT: "kept: changed since the import, or the old address is taken",
    rollback.GONE: "already deleted",
    rollback.SIGNED_UP: "kept: signed up after the import",
}


@dataclass(frozen=True, slots=True)
class Face:
    """How the reader calls the command: by make's targets, or by the module's name."""

    by_make: bool

    @property
    def doctor(self) -> str:
        """Write the command line that looks for what is wrong."""
        return "make doctor" if self.by_make else "python -m shared.doctor"

    def action(self, name: str, batch: str = "") -> str:
        """Write the command line of an action."""
        if self.by_make:
            return f"make {TARGETS[name]}" + (f" BATCH={shlex.quote(batch)}" if batch else "")
        return f"python -m shared.transfer {name} {shlex.quote(batch) if batch else ''}".rstrip()

    def option(self, name: str) -> str:
        """Write an option."""
        return f"ARGS={name}" if self.by_make else name

    def translate(self, sentence: str) -> str:
        """Replace what stands in backquotes and has another name here: actions and options.

        What raises an error names these as the API does, `status` or `skip_invalid`.
        """

        def replace(match: re.Match[str]) -> str:
            if match[1] in TARGETS:
                return f"`{self.action(match[1])}`"
            return f"`{self.option('--skip-invalid')}`" if match[1] == "skip_invalid" else match[0]

        return _QUOTED.sub(replace, sentence)


def question(found: Plan, migrations: int, place: str) -> str:
    """Ask whether to do what a plan says."""
    lost = ", ".join(f"{it['rows']:,} {_ASKED[kind]}" for kind, it in found.losses.items())
    first = (
        f"Among {count(found.counts[staging.CHANGED], 'changed user')}: {lost}. " if lost else ""
    )
    if not migrations:
        return f"{first}Write {count(found.to_write, 'user')} to {place}?"
    first += f"Apply {count(migrations, 'migration')}"
    return f"{first} and write {count(found.to_write, 'user')} to {place}?"


def following(found: RolledBack, verb: str) -> str:
    """Name other applications' tables that a rollback changes, in a line of its own."""
    if not found.following:
        return ""
    tables = ", ".join(found.following)
    return f"With removed users, the rows of other tables that refer to them {verb}: {tables}.\n"


def question_before_rollback(planned: RolledBack, place: str) -> str:
    """Ask whether to do what a preview of a rollback says."""
    numbers = {
        "remove": planned.counts[rollback.REMOVED],
        "restore": planned.counts[rollback.RESTORED],
    }
    parts = [f"{verb} {count(number, 'user')}" for verb, number in numbers.items() if number]
    asked = " and ".join(parts) or "close the batch, which changes no user,"
    return f"{asked.capitalize()} in {place}?"


def agreement(found: Plan) -> str:
    """Say how many users a successful verification found to agree."""
    if not found.rows:
        return "The source holds no users."
    agree = found.counts[staging.IDENTICAL]
    if agree == found.rows - found.stayed:
        return "The only user agrees." if agree == 1 else f"All {agree:,} agree."
    sentence = f"{agree:,} of {count(found.rows, 'row')} agree with Postgres"
    if kept := found.counts[staging.KEPT]:
        were = "was" if kept == 1 else "were"
        sentence += f"; {kept:,} changed there or {were} never imported, so Postgres wins"
    if found.rejected:
        are = "is" if found.rejected == 1 else "are"
        sentence += f"; {found.rejected:,} cannot be imported and {are} left out"
    return f"{sentence}."


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
        (_LOSSES[kind][0], it["rows"], f"{_LOSSES[kind][1]} ({_examples(it)})")
        for kind, it in found.losses.items()
    ]
    rows += [
        (f"“{name}”", number, f"{'has' if number == 1 else 'have'} this member; it is not imported")
        for name, number in found.unknown_members.items()
    ]
    rows += [
        ("left behind", it["rows"], f"{reason} ({_examples(it)})")
        for reason, it in found.left_behind.items()
    ]
    if found.without_password:
        text = "without a password: they set one by mail, or sign in with a link"
        rows.append(("no password", found.without_password, text))
    rows += [
        ("odd time", doubt["rows"], f"{_DOUBTFUL_TIMES[name]} (the first: row {doubt['first']:,})")
        for name, doubt in found.doubtful_times.items()
    ]
    return rows


def _examples(found: dict[str, Any]) -> str:
    """Name a few rows."""
    numbers = found["examples"]
    rows = f"{'row' if len(numbers) == 1 else 'rows'} {', '.join(f'{it:,}' for it in numbers)}"
    return rows if found["rows"] == len(numbers) else f"{rows} …"


def batch_row(batch: Batch) -> tuple[str, object, str]:
    """Give the line of a table of imports."""
    written = batch.counts[staging.NEW] + batch.counts[staging.CHANGED]
    users = "user" if written == 1 else "users"
    history = f"{users} written by {batch.run_by} at {to_iso(batch.applied_at)}"
    if batch.rolled_back_at:
        history += f", rolled back by {batch.rolled_back_by} at {to_iso(batch.rolled_back_at)}"
    return batch.id, written, history
