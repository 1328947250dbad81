"""Takes an import back, without taking anything from those who came or changed after it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.database.pool import Database
from shared.errors import StoreFault, TransferRefused
from shared.formats.timestamps import to_iso
from shared.model.user_record import COLUMNS
from shared.model.users import User
from shared.store.postgres import neighbours
from shared.store.postgres.statements import next_epoch
from shared.transfer import access, batches, staging
from shared.transfer.announcing import read_ended
from shared.transfer.steps import Event, Outcome, Progress, Ready, commit, transaction
from shared.transfer.users_table import DIGEST, HELD, assignments

REMOVED, RESTORED, GONE, SIGNED_UP = "removed", "restored", "gone", "signed_up"
"""What became of a batch's user at its rollback, beside KEPT; and who came later."""

_REASONS = {
    staging.KEPT: "Kept: it has changed since, or another user has its old address or identity.",
    GONE: "It was already deleted from Postgres.",
    SIGNED_UP: "Kept: it signed up after the import.",
}
_LOCK_USERS = """
SELECT count(*) FROM (
    SELECT FROM users u JOIN import_records r ON r.user_id = u.id AND r.batch = :batch::bigint
    FOR UPDATE OF u
) locked
"""
_PREVIOUS_IDENTITIES = """
jsonb_populate_recordset(NULL::identities, coalesce(r.previous->'identities', '[]'))
"""
# A record without a user's columns is of somebody whom the batch brought.
_BROUGHT = "r.previous->>'id' IS NULL"
_HIGHER_EPOCH = "greatest(u.epoch, (r.previous->>'epoch')::int)"
_JUDGE = f"""
INSERT INTO rolled_back_users
SELECT r.user_id, u.email,
    -- What ended sessions must not be taken back; and who loses a way to log in again loses those
    -- that it began.
    r.previous || jsonb_build_object('epoch', CASE
        WHEN r.previous->>'password' IS DISTINCT FROM u.password OR EXISTS (
            SELECT FROM identities held WHERE held.user_id = u.id AND NOT EXISTS (
                SELECT FROM {_PREVIOUS_IDENTITIES} p
                WHERE (p.issuer, p.subject) = (held.issuer, held.subject)
            )
        ) THEN {next_epoch(_HIGHER_EPOCH)} ELSE {_HIGHER_EPOCH} END), CASE
    WHEN u.id IS NULL THEN 'gone'
    WHEN {DIGEST} <> r.digest THEN 'kept'
    -- Who signed up in an outage is in the file only until they are here. Not by EXISTS, for which
    -- all operations may be read for each user.
    WHEN {_BROUGHT} AND u.id IN (SELECT user_id FROM applied_ops) THEN 'kept'
    WHEN {_BROUGHT} THEN 'removed'
    WHEN EXISTS (
        SELECT FROM users o WHERE o.id <> r.user_id
        AND (o.email_key = r.previous->>'email_key' OR o.email = r.previous->>'email')
    ) OR EXISTS (
        SELECT FROM {_PREVIOUS_IDENTITIES} p JOIN identities o USING (issuer, subject)
        WHERE o.user_id <> r.user_id
    ) THEN 'kept'
    ELSE 'restored' END
FROM import_records r LEFT JOIN {HELD} ON u.id = r.user_id WHERE r.batch = :batch::bigint
"""
_SIGNED_UP = """
INSERT INTO rolled_back_users
SELECT u.id, u.email, NULL, 'signed_up' FROM users u
WHERE u.created_at > (SELECT applied_at FROM import_batches WHERE number = :batch::bigint)
  AND NOT EXISTS (SELECT FROM import_records r WHERE r.user_id = u.id)
"""
_ENDED = """
SELECT u.id, u.epoch FROM rolled_back_users r JOIN users u ON u.id = r.user_id
WHERE r.verdict = 'removed'
OR (r.verdict = 'restored' AND u.epoch <> (r.previous->>'epoch')::int)
"""
_REMOVE = "DELETE FROM users USING rolled_back_users r WHERE id = r.user_id AND verdict = 'removed'"
_RESTORE = f"""
UPDATE users u SET {assignments({name: f"p.{name}" for name in COLUMNS})}
FROM rolled_back_users r, jsonb_populate_record(NULL::users, r.previous) p
WHERE u.id = r.user_id AND r.verdict = 'restored';
DELETE FROM identities USING rolled_back_users r
WHERE identities.user_id = r.user_id AND r.verdict = 'restored';
INSERT INTO identities
SELECT p.* FROM rolled_back_users r, {_PREVIOUS_IDENTITIES} p WHERE r.verdict = 'restored'
"""
# The batch before has brought them as they are now, but for the epoch: it can be rolled back as
# well, and this one be brought again.
_RAISE_RECORDS = f"""
WITH held AS MATERIALIZED (
    SELECT u.id, u.epoch, {DIGEST} AS digest
    FROM rolled_back_users t JOIN {HELD} ON u.id = t.user_id WHERE t.verdict = 'restored'
)
UPDATE import_records r SET digest = held.digest, previous = coalesce(r.previous, '{{}}')
    || jsonb_build_object('raised', coalesce((r.previous->>'raised')::int, 0)
        + held.epoch - (this.previous->>'epoch')::int)
FROM held JOIN import_records this ON this.user_id = held.id AND this.batch = :batch::bigint
WHERE held.epoch > (this.previous->>'epoch')::int AND r.user_id = held.id AND r.batch = (
    SELECT max(batch) FROM import_records b
    WHERE b.user_id = this.user_id AND b.batch < this.batch
)
"""
# A record of whom the rollback kept still tells that an import brought them, and what.
_FORGET = """
DELETE FROM import_records r USING rolled_back_users t
WHERE r.batch = :batch::bigint AND t.user_id = r.user_id AND t.verdict <> 'kept'
"""
_TAKEN_BACK_WRONGLY = f"""
SELECT count(*) FROM rolled_back_users r LEFT JOIN {HELD} ON u.id = r.user_id
WHERE (r.verdict = 'removed' AND u.id IS NOT NULL) OR r.verdict = 'restored' AND (
    i.member->'identities' IS DISTINCT FROM r.previous->'identities'
    OR {DIGEST} IS DISTINCT FROM (
        SELECT {DIGEST} FROM jsonb_populate_record(NULL::users, r.previous) u
    )
)
"""
_LATER_BATCH = """
SELECT b.id FROM import_records r JOIN import_records l USING (user_id)
JOIN import_batches b ON b.number = l.batch
WHERE r.batch = :batch::bigint AND l.batch > r.batch AND b.rolled_back_at IS NULL
ORDER BY b.number DESC LIMIT 1
"""
_CLOSE = """
WITH event AS (
    INSERT INTO auth_events (at, kind, actor)
    VALUES (CURRENT_TIMESTAMP, 'import_rolled_back', :run_by)
)
UPDATE import_batches SET rolled_back_at = CURRENT_TIMESTAMP, rolled_back_by = :run_by
WHERE number = :batch::bigint RETURNING number
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """How many users of the batch were removed, restored, kept or gone, and who came later.

    A preview tells how many would be.
    """

    batch: str
    counts: dict[str, int]
    following: list[str]
    """Others' tables, whose rows go with the removed users to whom they refer, or forget them."""


def preview(database: Database, batch_id: str) -> Generator[Event, None, RolledBack]:
    """Tell what taking a batch back would do now, in a transaction that is undone.

    Raises as `roll_back`, but that tables that refer to users are found by that alone.
    """
    with transaction(database, write=access.ROLLBACK) as connection:
        batch = str(_find(connection, batch_id))
        yield Progress("compare")
        _judge(connection, batch, lock=False)
        yield from _outcomes(connection)
        return _rolled_back(connection, batch_id)


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

    with transaction(database, write=access.ROLLBACK) as connection:
        staging.lock(connection)
        batch = str(_find(connection, batch_id))
        yield Progress("write")
        try:
            ended = _take_back(connection, batch, run_by)
        except StoreFault as error:
            table, constraint = (error.objects.get(name) for name in ("table", "constraint"))
            if error.sqlstate not in sqlstate.REFERRED_TO or table in (None, "users"):
                raise
            raise TransferRefused(
                "Nothing was changed: another table refers to users of this batch "
                f"(constraint {constraint} of {table}). Remove its rows first.",
                **error.facts,
            ) from error
        done = _rolled_back(connection, batch_id)
        yield from _outcomes(connection)
        yield Ready(ended)
        commit(database, connection, is_done)
    return done


def _find(connection: Connection, batch_id: str) -> int:
    """Give the number of a batch that can be taken back. Raises TransferRefused."""
    found = batches.find(connection, batch_id)
    if found is None:
        raise TransferRefused(f"There is no batch {batch_id}: `status` lists them.")
    number, rolled_back_at = found
    if rolled_back_at is not None:
        raise TransferRefused(f"Batch {batch_id} was rolled back at {to_iso(rolled_back_at)}.")
    return number


def _judge(connection: Connection, batch: str, *, lock: bool) -> None:
    """Give each user of a batch a verdict, which `_outcomes` reads until the transaction ends.

    Raises TransferRefused where a later batch has to be rolled back first.
    """
    connection.run_script(staging.ANALYZE_RECORDS)
    if later := connection.execute(_LATER_BATCH, batch=batch):
        raise TransferRefused(f"Batch {later[0][0]} changed users of this one: roll it back first.")
    connection.run_script(
        "CREATE TEMP TABLE rolled_back_users"
        " (user_id uuid, email text, previous jsonb, verdict text) ON COMMIT DROP"
    )
    if lock:
        connection.execute(_LOCK_USERS, batch=batch)
    connection.execute(_JUDGE, batch=batch)
    connection.execute(_SIGNED_UP, batch=batch)
    connection.run_script("ANALYZE rolled_back_users")


def _take_back(connection: Connection, batch: str, run_by: str) -> list[User]:
    """Take back what a batch brought and nobody has changed since; give whose sessions it ends."""
    _judge(connection, batch, lock=True)
    ended = read_ended(connection, _ENDED)
    connection.run_script(f"{_REMOVE}; {_RESTORE}; SET CONSTRAINTS ALL IMMEDIATE")
    if connection.execute(_TAKEN_BACK_WRONGLY)[0][0]:
        raise TransferRefused(
            "Verification failed: users were not removed or restored; a trigger or rule of the "
            "table may have kept or changed them. Nothing was changed."
        )
    connection.execute(_RAISE_RECORDS, batch=batch)
    connection.execute(_FORGET, batch=batch)
    if not connection.execute(_CLOSE, batch=batch, run_by=run_by):
        raise TransferRefused(
            "Verification failed: the batch could not be closed; a trigger or rule of "
            "import_batches keeps it open. Nothing was changed."
        )
    return ended


def _rolled_back(connection: Connection, batch_id: str) -> RolledBack:
    rows = connection.execute("SELECT verdict, count(*) FROM rolled_back_users GROUP BY verdict")
    found = dict(map(tuple, rows))
    counts = {v: found.get(v, 0) for v in (REMOVED, RESTORED, staging.KEPT, GONE, SIGNED_UP)}
    following = [
        str(reference)
        for reference in neighbours.references(connection.execute)
        if reference.follows and counts[REMOVED]
    ]
    return RolledBack(batch=batch_id, counts=counts, following=following)


def _outcomes(connection: Connection) -> Iterator[Outcome]:
    """Name those who are not simply taken back."""
    rows = staging.stream(
        connection,
        "SELECT verdict, user_id::text, email FROM rolled_back_users"
        " WHERE verdict IN ('kept', 'gone', 'signed_up') ORDER BY verdict, user_id",
    )
    for verdict, user_id, email in rows:
        yield Outcome(verdict, _REASONS[verdict], user_id=user_id, email=email)
