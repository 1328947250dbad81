"""Brings to Postgres what was accepted while it was away: each once, and Postgres wins."""

from __future__ import annotations

import json
from collections.abc import Sequence

from shared.database.connection import Connection
from shared.errors import StoreFault
from shared.model.user_record import UserRecord
from shared.store.postgres.outbox_sql import enqueue
from shared.store.postgres.rows import changed_by_others, kept_out
from shared.transfer.users_table import RECORD_DEFINITIONS, insert_from, moment

CREATED, PRESENT = "created", "present"
EMAIL_TAKEN, ID_TAKEN, INVALID = "email_taken", "id_taken", "invalid"
REFUSED = "refused"
"""What became of an operation. Three are for the quarantine; what is refused is pending still."""

# It waits for a transaction that has the same operation and has not ended, such as one of ours
# whose connection was lost.
_CLAIM = """
INSERT INTO applied_ops (operation, outcome, user_id)
VALUES (:operation::uuid, :outcome, :user_id::uuid)
ON CONFLICT (operation) DO NOTHING RETURNING outcome
"""
_CLAIMED = "SELECT outcome, user_id::text FROM applied_ops WHERE operation = :operation::uuid"
_CORRECT = "UPDATE applied_ops SET outcome = :outcome WHERE operation = :operation::uuid"
_CREATE = f"""
{insert_from("r")} FROM json_to_record(:record::json) AS r ({RECORD_DEFINITIONS})
ON CONFLICT (email_key) DO NOTHING RETURNING id::text, email_key, password::text
"""
_FIND = "SELECT email_key FROM users WHERE id = :user_id::uuid"
# Rows of the old server may have no key.
_FIND_ADDRESS = "SELECT 1 FROM users WHERE email_key = :key OR email = :email LIMIT 1"
_END_SESSIONS = """
WITH revoked AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT pair->>0, to_timestamp((pair->>1)::float8), :user_id::uuid
    FROM json_array_elements(:revoked::json) pair
    ON CONFLICT (sid) DO NOTHING
)
UPDATE users SET epoch = :epoch::int WHERE id = :user_id::uuid AND epoch < :epoch::int
"""
# The mail that a sign-up of an outage could not have then. Its id is the operation's.
_ASK_FOR_PROOF = enqueue(
    "'verification'",
    "users u",
    where="u.id = :user_id::uuid AND u.email_verified_at IS NULL"
    " AND u.unverified_since IS NOT NULL",
)
# Whoever has a session of the file's would else read as the user who has the same id here.
_PART = """
UPDATE users SET epoch = :epoch::int + 1 WHERE id = :user_id::uuid AND epoch <= :epoch::int
"""
_AUDIT = f"""
INSERT INTO auth_events (id, at, kind, user_id)
VALUES (
    :operation::uuid, least({moment(":at::bigint")}, CURRENT_TIMESTAMP), :kind, :user_id::uuid
)
ON CONFLICT (id) DO NOTHING
"""


def apply(
    connection: Connection,
    operation: str,
    record: UserRecord | None,
    revoked: Sequence[tuple[str, float]] = (),
    *,
    asks_for_proof: bool = False,
) -> str:
    """Bring a user who signed up at a time, in one transaction, and tell what became of it.

    `record` is None where the pending user is none that could be brought. `revoked` are the user's
    sessions that were logged out, each with its end in seconds since 1970. `asks_for_proof` has a
    mail sent to who is created.

    A repeated call gives the outcome of the first, and ends the sessions that have been ended in
    the file since. Nothing that Postgres has of a user is changed, but for what ends sessions.

    Raises StoreFault and StoreRefused where the database refuses it, for a constraint or a trigger
    of another's: that tells nothing of the operation, which is to be left pending.
    """
    user_id = record and record.id
    outcome = CREATED if record else INVALID
    if not connection.execute(_CLAIM, operation=operation, outcome=outcome, user_id=user_id):
        claimed = connection.execute(_CLAIMED, operation=operation)
        if not claimed:
            raise kept_out("applied_ops")
        ((outcome, claimed_by),) = claimed
        if record and claimed_by != user_id:  # Somebody has given two users one operation.
            outcome = INVALID
    elif record:
        outcome = _create(connection, record)
        connection.execute(_CORRECT, operation=operation, outcome=outcome)
        if outcome == CREATED and asks_for_proof:
            connection.execute(
                _ASK_FOR_PROOF, mail_id=operation, user_id=user_id, sends_mail=True, client=None
            )
        kind = "signup" if outcome in (CREATED, PRESENT) else "signup_quarantined"
        connection.execute(
            _AUDIT, operation=operation, at=record.created_at, kind=kind, user_id=user_id
        )
    if record and outcome == ID_TAKEN:
        connection.execute(_PART, user_id=user_id, epoch=record.epoch)
    if record and outcome in (CREATED, PRESENT):
        connection.execute(
            _END_SESSIONS, user_id=user_id, revoked=json.dumps(revoked), epoch=record.epoch
        )
    connection.run_script("COMMIT")
    return str(outcome)


def _create(connection: Connection, record: UserRecord) -> str:
    connection.run_script("SAVEPOINT creation")
    fault: StoreFault | None = None
    try:
        if created := connection.execute(_CREATE, record=json.dumps(record._asdict())):
            if created[0] != [record.id, record.email_key, record.password]:
                raise changed_by_others()
            return CREATED
    except StoreFault as error:
        connection.run_script("ROLLBACK TO creation")
        fault = error
    if found := connection.execute(_FIND, user_id=record.id):
        # The same id was made once only: it is this sign-up, whose answer was lost, or was
        # imported.
        return PRESENT if found[0][0] == record.email_key else ID_TAKEN
    if connection.execute(_FIND_ADDRESS, key=record.email_key, email=record.email):
        return EMAIL_TAKEN
    raise fault or kept_out("users")
