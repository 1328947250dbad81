"""Brings to Postgres what was accepted while it was away: each once, and Postgres wins."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.database.connection import Connection
from shared.model.emails import email_key

CREATED, PRESENT = "created", "present"
EMAIL_TAKEN, ID_TAKEN, INVALID = "email_taken", "id_taken", "invalid"
"""What became of an operation. The last three are for the quarantine."""

# It waits for a transaction that has the same operation and has not ended, such as one of ours
# whose connection was lost.
_CLAIM = """
INSERT INTO applied_ops (operation, outcome, user_id) VALUES ($1::uuid, $2, $3::uuid)
ON CONFLICT (operation) DO NOTHING RETURNING outcome
"""
_CLAIMED = "SELECT outcome, user_id::text FROM applied_ops WHERE operation = $1::uuid"
_CORRECT = "UPDATE applied_ops SET outcome = $2 WHERE operation = $1::uuid"
_CREATE = """
INSERT INTO users (id, email, email_key, password, name, provider, created_at, updated_at, epoch)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7::timestamptz, $8::timestamptz, $9::int)
ON CONFLICT DO NOTHING RETURNING id
"""
_FIND = "SELECT email_key FROM users WHERE id = $1::uuid"
_END_SESSIONS = """
WITH revoked AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT pair->>0, to_timestamp((pair->>1)::float8), $1::uuid
    FROM json_array_elements($2::json) pair
    ON CONFLICT (sid) DO NOTHING
)
UPDATE users SET epoch = $3::int WHERE id = $1::uuid AND epoch < $3::int
"""
# Whoever has a session of the file's would else read as the user who has the same id here.
_PART = "UPDATE users SET epoch = $2::int + 1 WHERE id = $1::uuid AND epoch <= $2::int"
_AUDIT = """
INSERT INTO auth_events (id, at, kind, user_id)
VALUES ($1::uuid, least($2::timestamptz, CURRENT_TIMESTAMP), $3, $4::uuid)
ON CONFLICT (id) DO NOTHING
"""


def apply(
    connection: Connection,
    operation: str,
    record: dict[str, Any],
    revoked: Sequence[tuple[str, float]] | None,
) -> str:
    """Bring a user who signed up at a time, in one transaction, and tell what became of it.

    `revoked` are the user's sessions that were logged out, each with its end in seconds since 1970;
    it is None where the record is no user that could be brought.

    A repeated call gives the outcome of the first, and ends the sessions that have been ended in
    the file since. Nothing that Postgres has of a user is changed, but for what ends sessions.
    """
    user_id = None if revoked is None else record["id"]
    outcome = INVALID if revoked is None else CREATED
    if not connection.execute(_CLAIM, operation, outcome, user_id):
        ((outcome, claimed_by),) = connection.execute(_CLAIMED, operation)
        if (
            user_id is not None and claimed_by != user_id
        ):  # Somebody has given two users one operation.
            outcome = INVALID
    elif revoked is not None:
        outcome = _create(connection, record)
        connection.execute(_CORRECT, operation, outcome)
        kind = "signup" if outcome in (CREATED, PRESENT) else "signup_quarantined"
        connection.execute(_AUDIT, operation, record.get("createdAt"), kind, user_id)
    epoch = str(record.get("epoch", 0))
    if outcome == ID_TAKEN:
        connection.execute(_PART, user_id, epoch)
    if revoked is not None and outcome in (CREATED, PRESENT):
        ended = json.dumps(revoked)
        connection.execute(_END_SESSIONS, user_id, ended, epoch)
    connection.run_script("COMMIT")
    return str(outcome)


def _create(connection: Connection, record: dict[str, Any]) -> str:
    key = email_key(record["email"])
    created = connection.execute(
        _CREATE,
        record["id"],
        record["email"],
        key,
        record.get("password"),
        record.get("name"),
        record.get("provider"),
        record.get("createdAt"),
        record.get("updatedAt"),
        str(record.get("epoch", 0)),
    )
    if created:
        return CREATED
    found = connection.execute(_FIND, record["id"])
    if not found:
        return EMAIL_TAKEN
    # The same id was made once only: it is this sign-up, whose answer was lost, or was imported.
    return PRESENT if found[0][0] == key else ID_TAKEN
