"""Brings sign-ups of an outage to Postgres, and leaves them out of the users file then.

Each operation is a transaction of its own, under the users file's lock. Who has lost the address to
another user goes, with a reason and what to do, into the quarantine: a file of JSON lines. Whom the
database refuses for another reason is pending still, and told of.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared import files
from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.database.pool import Database
from shared.errors import StoreFault, StoreRefused, StoreUnavailable
from shared.formats.timestamps import now_iso
from shared.model.user_record import (
    PENDING,
    InvalidRow,
    UserRecord,
    canonical,
    parse,
    revoked_sessions,
)
from shared.store.json_file.store import JsonFileStore
from shared.transfer import access, pending_sign_ups
from shared.transfer.steps import Event, Outcome, transaction

OPERATION_SECONDS = 5.0
"""Per attempt at an operation, because the users file is locked meanwhile."""

REASONS = {
    pending_sign_ups.CREATED: "Postgres has the user now.",
    pending_sign_ups.PRESENT: "It was already in Postgres: imported, or its answer was lost.",
    pending_sign_ups.EMAIL_TAKEN: "Another user in Postgres has this address and keeps it.",
    pending_sign_ups.ID_TAKEN: "A user in Postgres with another address has this id and keeps it.",
    pending_sign_ups.INVALID: "The record was edited and is not a valid user.",
    pending_sign_ups.REFUSED: "The database refuses it, so that it is still pending",
}
_SAME_PERSON = (
    "If both are the same person, nothing is lost: they log in with the password or Google account "
    "of the user in Postgres. Otherwise ask this person, by other means than this address, to sign "
    "up with their own address."
)
ADVICE = {
    pending_sign_ups.EMAIL_TAKEN: _SAME_PERSON,
    pending_sign_ups.ID_TAKEN: _SAME_PERSON,
    pending_sign_ups.INVALID: "Ask the user to sign up again, or fix the record and import it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """Numbers of operations by outcome, and of those still pending."""

    counts: dict[str, int]
    pending: int

    @property
    def quarantined(self) -> int:
        """Count those that went into the quarantine."""
        return sum(self.counts[outcome] for outcome in ADVICE)

    @property
    def refused(self) -> int:
        """Count those that the database refused."""
        return self.counts[pending_sign_ups.REFUSED]


def quarantine_of(users_file: Path) -> Path:
    """Name the quarantine of a users file."""
    return users_file.with_name(f"{users_file.stem}.quarantine.jsonl")


def reconcile(
    database: Database, users: JsonFileStore, quarantine: Path, *, asks_for_proof: bool = False
) -> Generator[Event, None, Reconciled]:
    """Bring every pending operation to Postgres or into the quarantine.

    `asks_for_proof` has each new user mailed, as a sign-up does. What has not been done when it
    stops, for whatever reason, is pending still; what has been done is told of before. Raises
    StoreUnavailable, TransferRefused where the schema is not ready, and OSError.
    """
    counts = Counter(dict.fromkeys(REASONS, 0))
    for operation in users.pending():
        done: list[Outcome] = []
        # Before the lock, so that whoever signs up meanwhile waits for no dialing.
        with transaction(database, write=_rights(asks_for_proof)) as connection:
            try:
                users.resolve(
                    operation,
                    partial(
                        _bring,
                        database,
                        connection,
                        quarantine,
                        done,
                        asks_for_proof=asks_for_proof,
                    ),
                )
            except _StillPending as error:
                done.append(error.outcome)
            except (StoreUnavailable, OSError):  # Perhaps only the file could not be written.
                yield from done
                raise
        for outcome in done:
            counts[outcome.verdict] += 1
            yield outcome
    return Reconciled(counts=dict(counts), pending=len(users.pending()))


class _StillPending(Exception):
    """The database refuses an operation, which stays where it is."""

    def __init__(self, outcome: Outcome) -> None:
        """Take what is to be told."""
        self.outcome = outcome


def _bring(
    database: Database,
    connection: Connection,
    quarantine: Path,
    done: list[Outcome],
    record: dict[str, Any],
    *,
    asks_for_proof: bool,
) -> None:
    """Bring a pending user to Postgres, or into the quarantine, and add to what is `done`."""
    parsed: UserRecord | None
    try:
        parsed = parse(record)
        canonical(parsed)
    except InvalidRow:
        parsed = None
    outcome = partial(Outcome, user_id=parsed and parsed.id, email=record["email"])
    try:
        verdict = _apply(database, connection, record, parsed, asks_for_proof=asks_for_proof)
    except (StoreFault, StoreRefused) as error:
        refused = pending_sign_ups.REFUSED
        raise _StillPending(outcome(refused, f"{REASONS[refused]}: {error}.")) from error
    if verdict in ADVICE:
        _quarantine(quarantine, record, verdict)
    done.append(outcome(verdict, REASONS[verdict]))


def _apply(
    database: Database,
    connection: Connection,
    record: dict[str, Any],
    parsed: UserRecord | None,
    *,
    asks_for_proof: bool,
) -> str:
    operation = record[PENDING]["operation"]
    revoked = revoked_sessions(record) if parsed else ()

    def apply(connection: Connection) -> str:
        connection.set_deadline(time.monotonic() + OPERATION_SECONDS)
        return pending_sign_ups.apply(
            connection, operation, parsed, revoked, asks_for_proof=asks_for_proof
        )

    try:
        return apply(connection)
    except StoreRefused:
        raise
    except (ConnectionLost, StoreUnavailable):
        # Where the answer to the COMMIT was lost, the second time finds what the first has done.
        rights = _rights(asks_for_proof)
        with transaction(database, write=rights, seconds=OPERATION_SECONDS) as fresh:
            return apply(fresh)


def _rights(asks_for_proof: bool) -> access.Rights:
    return {**access.RECONCILIATION, **(access.MAIL if asks_for_proof else {})}


def _quarantine(path: Path, record: dict[str, Any], outcome: str) -> None:
    """Append a line, durably, unless it is there already."""
    try:
        lines, _ = files.read(path)
    except FileNotFoundError:
        lines = b""
    operation = record[PENDING]["operation"]
    # Whatever an operator has made of the line since.
    if any(operation in line and str(record["id"]) in line for line in lines.decode().splitlines()):
        return
    entry = {
        "operation": operation,
        "at": now_iso(),
        "outcome": outcome,
        "reason": REASONS[outcome],
        "advice": ADVICE[outcome],
        "user": record,
    }
    end = b"" if not lines or lines.endswith(b"\n") else b"\n"
    files.replace(path, lines + end + json.dumps(entry).encode() + b"\n")
