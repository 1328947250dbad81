"""What an import writes: new and changed users, what it brought of each, and the proof of it.

It works on the staging table of `shared.transfer.staging`, in the same transaction.
"""

from __future__ import annotations

import json

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.errors import StoreFault, StoreUnavailable, TransferRefused
from shared.model.users import User
from shared.store.postgres import neighbours
from shared.transfer import staging
from shared.transfer.announcing import read_ended
from shared.transfer.users_table import (
    DIGEST,
    HELD,
    assignments,
    digest_with,
    insert_from,
    values_of,
)

INDEX_LOCK_TIMEOUT = "1s"
INDEX_LATER_ROWS = 10_000
"""From how many new users on an empty table gets its indexes afterwards."""


# An identical row was compared already, and may change until the COMMIT; these cannot any more.
_WRITTEN = "('new', 'changed')"
_PROOF = f"""
SELECT count(*), count(*) FILTER (WHERE held.digest = s.digest)
FROM staged_users s LEFT JOIN (SELECT u.id, {DIGEST} AS digest FROM {HELD} {{}}) held
    ON held.id = s.id
WHERE s.verdict IN {_WRITTEN} AND s.raised = 0
"""
# The source's digest has the epoch from before it was raised.
_PROOF_OF_RAISED = f"""
SELECT count(*), count(*) FILTER (WHERE {digest_with("u.epoch - s.raised")} = s.digest)
FROM staged_users s LEFT JOIN {HELD} ON u.id = s.id
WHERE s.verdict IN {_WRITTEN} AND s.raised > 0
"""
# The advisory lock makes it safe; a sequence would go on even where nothing is committed.
_NEXT_BATCH = "SELECT coalesce(max(number), 0) + 1 FROM import_batches"
_RECORD_BATCH = """
WITH event AS (
    INSERT INTO auth_events (at, kind, actor) VALUES (CURRENT_TIMESTAMP, 'users_imported', :run_by)
)
INSERT INTO import_batches
    (number, id, plan_sha256, source_sha256, users_sha256, counts, run_by)
VALUES (
    :batch::bigint, :id, :plan_sha256, :source_sha256, :users_sha256, :counts::jsonb, :run_by
)
RETURNING number
"""
_RECORDED = "SELECT count(*) FROM import_records WHERE batch = :batch::bigint"
# Locks what it records, so that what is replaced is what was recorded.
_RECORD_CHANGED = f"""
INSERT INTO import_records (user_id, batch, digest, previous)
SELECT u.id, :batch::bigint, s.digest, to_jsonb(u) || coalesce(i.member, '{{}}')
    || CASE WHEN s.raised > 0 THEN jsonb_build_object('raised', s.raised) ELSE '{{}}' END
FROM staged_users s JOIN {HELD} ON u.id = s.id
WHERE s.verdict = 'changed' AND {DIGEST} = s.base FOR UPDATE OF u
"""
_UPDATE = f"""
UPDATE users u SET {assignments(values_of("s") | {"epoch": "s.epoch + s.raised"})}
FROM staged_users s
"""
_UPDATE_CHANGED = f"""
{_UPDATE} JOIN import_records r ON r.user_id = s.id AND r.batch = :batch::bigint
WHERE u.id = s.id AND s.verdict = 'changed'
"""
_RECORD_RAISED = f"""
WITH held AS MATERIALIZED (
    SELECT u.id, {DIGEST} AS digest FROM staged_users s JOIN {HELD} ON u.id = s.id
    WHERE s.verdict = 'changed' AND s.raised > 0
)
UPDATE import_records r SET digest = held.digest FROM held
WHERE r.user_id = held.id AND r.batch = :batch::bigint
"""
_ENDED = """
SELECT u.id, (r.previous->>'epoch')::int
FROM import_records r JOIN users u ON u.id = r.user_id
WHERE r.batch = :batch::bigint AND u.epoch <> (r.previous->>'epoch')::int
"""
_KEEP_UNRECORDED = """
UPDATE staged_users s SET verdict = 'kept' WHERE verdict = 'changed' AND NOT EXISTS (
    SELECT FROM import_records r WHERE r.user_id = s.id AND r.batch = :batch::bigint
)
"""
# A microsecond apart, so that they keep their order.
_INSERT_IDENTITIES = f"""
INSERT INTO identities (issuer, subject, user_id, created_at)
SELECT i.issuer, i.subject, i.id, CURRENT_TIMESTAMP + i.position * interval '1 microsecond'
FROM staged_identities i JOIN staged_users s USING (row) WHERE s.verdict IN {_WRITTEN}
"""
_DELETE_IDENTITIES = """
DELETE FROM identities i USING staged_users s WHERE i.user_id = s.id AND s.verdict = 'changed'
"""
# Of users who are here by then; what was revoked there and has not ended yet.
_REVOKE = """
WITH revoked AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT pair->>0, to_timestamp((pair->>1)::float8), s.id
    FROM staged_users s, jsonb_array_elements(s.revoked) pair
    WHERE s.revoked IS NOT NULL AND s.verdict IN ('new', 'changed', 'identical', 'kept', 'altered')
      AND to_timestamp((pair->>1)::float8) > CURRENT_TIMESTAMP
    ON CONFLICT (sid) DO NOTHING RETURNING sid
)
SELECT count(*), min(sid) FROM revoked
"""
# Who is here, or was and is to stay away, needs no reconciliation any more.
_RESOLVE = """
INSERT INTO applied_ops (operation, outcome, user_id)
SELECT operation, 'present', id FROM staged_users
WHERE operation IS NOT NULL
  AND verdict IN ('new', 'changed', 'identical', 'kept', 'altered', 'deleted')
ON CONFLICT (operation) DO NOTHING
"""
_INSERT = f"{insert_from('s')} FROM staged_users s WHERE s.verdict = 'new'"
# With the one index that is ours: others' constraints may be deferrable, which none of an
# ON CONFLICT may be, and who violates them is not to be left out without a word.
_INSERT_NEW = f"{_INSERT} ON CONFLICT (email_key) DO NOTHING"
_COUNT_INSERTED = f"WITH inserted AS ({_INSERT_NEW} RETURNING 1) SELECT count(*) FROM inserted"
_HELD = """
SELECT count(*) FROM staged_users s JOIN users u USING (id) WHERE s.verdict = 'new'
"""
_NOT_HELD = """
SELECT s.row, s.id::text FROM staged_users s LEFT JOIN users u USING (id)
WHERE s.verdict = 'new' AND u.id IS NULL ORDER BY s.row LIMIT 1
"""
# Others' constraints are asked at once: while a deferred one waits, no table can be altered.
_CHECK = "SET CONSTRAINTS ALL IMMEDIATE"
# The trigger makes keys for rows without one; to ask it takes longer than to write the row.
_FILL_USERS = f"""
ALTER TABLE users DISABLE TRIGGER set_users_email_key;
{_INSERT};
{_CHECK};
ALTER TABLE users ENABLE TRIGGER set_users_email_key
"""
PARTS = (
    f"{_UPDATE} WHERE u.id = s.id AND s.verdict = 'changed' AND {{rows}}",
    f"{_INSERT} AND {{rows}}",
    f"{_DELETE_IDENTITIES} AND {{rows}}",
    f"{_INSERT_IDENTITIES} AND {{rows}}",
)
"""What is written to the tables, one after the other, of some `rows` of the staging table `s`."""
_RECORD_NEW = """
INSERT INTO import_records (user_id, batch, digest)
SELECT id, {}, digest FROM staged_users WHERE verdict = 'new'
"""
_INDEXES = """
SELECT i.indexrelid::regclass::text, quote_ident(c.conname), pg_get_constraintdef(c.oid),
       pg_get_indexdef(i.indexrelid)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
WHERE i.indrelid = :table::regclass AND i.indisvalid
  AND NOT i.indisclustered AND NOT i.indisreplident AND x.relname IN (
    'users_pkey', 'users_email_key', 'idx_users_email', 'idx_users_provider',
    'idx_users_created_at', 'idx_users_email_key', 'import_records_pkey'
)
"""
# Others' foreign keys stay, and with them the index: then the rows go in the slower way.
_REFERENCES = """
SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
FROM pg_constraint
WHERE contype = 'f' AND confrelid = :table::regclass AND conrelid = 'identities'::regclass
"""

_UNLIKE = f"""
SELECT s.row, s.id::text FROM staged_users s LEFT JOIN {HELD} ON u.id = s.id
WHERE s.verdict IN {_WRITTEN}
AND {digest_with("u.epoch - s.raised")} IS DISTINCT FROM s.digest
ORDER BY s.row LIMIT 1
"""
_IS_REVOKED = "SELECT 1 FROM revoked_sessions WHERE sid = :sid"


def holds_all(connection: Connection, *, many: bool, changed: bool) -> bool:
    """Tell whether each user who was written is held as the source says.

    The users' digests are computed from the users themselves: of all of them, by parallel workers,
    which cannot read a temporary table and so work beneath the join, where many were written.
    """
    proofs = [_PROOF.format("OFFSET 0" if many else "")]
    if changed:  # Nobody else's epoch is raised.
        proofs.append(_PROOF_OF_RAISED)
    counted = [connection.execute(proof)[0] for proof in proofs]
    return all(expected == held for expected, held in counted)


def first_unlike(connection: Connection) -> tuple[int, str] | None:
    """Give the first row, and its id, whose user is not held as the source says."""
    rows = connection.execute(_UNLIKE)
    return (int(rows[0][0]), str(rows[0][1])) if rows else None


def write(connection: Connection, found: dict[str, int]) -> tuple[int, dict[str, int]]:
    """Write what is new and changed, of which so many were found.

    Gives the number of the batch, and the rows by verdict as they are then: whoever signed up or
    changed while this ran wins. Raises StoreFault where the database refuses a row;
    `refusals.explain` finds it.
    """
    number = int(connection.execute(_NEXT_BATCH)[0][0])
    if found[staging.CHANGED]:
        connection.execute(_RECORD_CHANGED, batch=number)
        connection.run_script(staging.ANALYZE_RECORDS)
        for statement in (_KEEP_UNRECORDED, _UPDATE_CHANGED):
            connection.execute(statement, batch=number)
    is_large = found[staging.NEW] >= INDEX_LATER_ROWS
    is_filled = is_large and _insert_unindexed(connection, "users", _FILL_USERS)
    if not is_filled:
        (inserted,) = connection.execute(_COUNT_INSERTED)[0]
        _require_own_ids(connection, int(inserted))
        staging.find_taken_emails(connection)
    if found[staging.CHANGED]:
        connection.run_script(_DELETE_IDENTITIES)
    connection.run_script(_INSERT_IDENTITIES)
    if found[staging.CHANGED]:
        connection.execute(_RECORD_RAISED, batch=number)
    record = _RECORD_NEW.format(number)
    if not (is_large and _insert_unindexed(connection, "import_records", record)):
        connection.run_script(f"{record} ORDER BY id")  # Far quicker where the index is there.
    if is_large:
        # A coarse look is enough until PostgreSQL takes its own, which all that was written is for.
        connection.run_script("ANALYZE users")
    connection.run_script(_CHECK)
    # Into a table that was empty and locked nobody else could come.
    is_as_found = is_filled and not found[staging.CHANGED]
    return number, found if is_as_found else staging.counts(connection)


def _require_own_ids(connection: Connection, inserted: int) -> None:
    """Raise TransferRefused where users came with other ids than they were written with.

    Each would look like another user who has the address.
    """
    if int(connection.execute(_HELD)[0][0]) >= inserted:
        return
    names = [
        trigger.name
        for trigger in neighbours.triggers(connection.execute, ["users"])
        if trigger.when == "BEFORE" and "INSERT" in trigger.verbs
    ]
    ((row, user_id),) = connection.execute(_NOT_HELD)
    keeper = f"the trigger {' or '.join(names)}" if names else "a trigger or rule"
    raise TransferRefused(
        f"Verification failed: row {row} (user {user_id}) came into users with another id; "
        f"{keeper} of the table changes it. Nothing was changed."
    )


def ended(connection: Connection, batch: int) -> list[User]:
    """Give the users whose sessions a batch ends, as they were."""
    return read_ended(connection, _ENDED, batch=batch)


def revoke_sessions(connection: Connection) -> tuple[int, str]:
    """Bring the sessions that were logged out in the source; count those that are new, name one."""
    number, sid = connection.execute(_REVOKE)[0]
    return int(number), str(sid)


def resolve_operations(connection: Connection) -> None:
    """Remember the operations of the pending users who were brought."""
    connection.execute(_RESOLVE)


def is_revoked(connection: Connection, sid: str) -> bool:
    """Tell whether a session was logged out."""
    return bool(connection.execute(_IS_REVOKED, sid=sid))


def record_batch(
    connection: Connection,
    number: int,
    batch_id: str,
    *,
    found: dict[str, int],
    plan_sha256: str,
    source_sha256: str,
    users_sha256: str,
    run_by: str,
) -> None:
    """Record who brought what.

    Raises TransferRefused where that is kept out: what is not recorded could not be taken back.
    """
    batch = connection.execute(
        _RECORD_BATCH,
        batch=number,
        id=batch_id,
        plan_sha256=plan_sha256,
        source_sha256=source_sha256,
        users_sha256=users_sha256,
        counts=json.dumps(found),
        run_by=run_by,
    )
    recorded = int(connection.execute(_RECORDED, batch=number)[0][0])
    for table, is_kept_out in (
        ("import_batches", not batch),
        ("import_records", recorded != found[staging.NEW] + found[staging.CHANGED]),
    ):
        if is_kept_out:
            raise TransferRefused(
                f"Verification failed: a row did not come into {table}; a trigger or rule of the "
                "table keeps it out. Nothing was changed."
            )


def _insert_unindexed(connection: Connection, table: str, insert: str) -> bool:
    """Fill an empty table and build its indexes afterwards, or leave it as it was and say so.

    The table is locked meanwhile; users are empty, so that nobody could log in.
    """
    if staging.is_any(connection, table):
        return False
    connection.run_script(f"SAVEPOINT unindexed; SET LOCAL lock_timeout = '{INDEX_LOCK_TIMEOUT}'")
    drop, build, last = [], [], []
    for referrer, constraint, definition in connection.execute(_REFERENCES, table=table):
        drop.append(f"ALTER TABLE {referrer} DROP CONSTRAINT {constraint}")
        last.append(f"ALTER TABLE {referrer} ADD CONSTRAINT {constraint} {definition}")
    for index, constraint, constraint_definition, definition in connection.execute(
        _INDEXES, table=table
    ):
        if constraint:
            drop.append(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
            build.append(f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {constraint_definition}")
        else:
            drop.append(f"DROP INDEX {index}")
            build.append(definition)
    try:
        connection.run_script(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        if staging.is_any(connection, table):
            raise StoreFault(sqlstate.OBJECT_NOT_IN_PREREQUISITE_STATE, "somebody was faster")
        connection.run_script(";".join(drop))
    except (StoreUnavailable, StoreFault):
        # The table is in use, not ours, or something hangs on one of its constraints.
        connection.run_script("ROLLBACK TO unindexed")
        return False
    try:
        connection.run_script(f"SET LOCAL lock_timeout = '{staging.LOCK_SECONDS}s'")
        connection.run_script(";".join([insert, *build, *last]))
    except StoreFault:  # Others' triggers or constraints refuse it, or bear no ALTER after it.
        connection.run_script("ROLLBACK TO unindexed")
        return False
    return True
