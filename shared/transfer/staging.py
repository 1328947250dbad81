"""The source of an import in Postgres: staged, compared with the users, and reported on.

What only compares needs no table; see `shared.transfer.comparing`, which judges by the same SELECT.
Every row is copied to a temporary table of the import's own transaction, with its digest, and
given a verdict there. Nothing here changes a user. The caller begins the transaction with `begin`
and ends it with a COMMIT, or by closing the connection.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.database.session import LIFT_LIMITS, Row
from shared.database.statement import Value
from shared.errors import StoreUnavailable, TransferRefused
from shared.model.user_record import COLUMNS, NULL, UserRecord, copy_line, escaped
from shared.transfer import access, duplicates
from shared.transfer.users_table import (
    COLUMN_NAMES,
    DIGEST,
    HELD,
    RECORD_DEFINITIONS,
    digest_with,
)

LOCK_KEY = 4_101_202_612
"""The advisory lock of everything that imports or rolls back."""
LOCK_SECONDS = 30
"""How long one import waits for another, or for a lock on the table."""
ORPHAN_CHECK = "2s"
"""After which a statement ends whose client has gone."""
IDLE_SECONDS = 60
"""After which a write is undone whose client says nothing, as one does that lost its network."""
READING_IDLE_SECONDS = 3600
"""After which one ends that only reads, and keeps nobody waiting."""
FETCH_ROWS = 1000
FETCH_BLOCKS = 10
DECISIONS_PART = 10_000
"""Rows whose decisions are digested together."""

NEW, CHANGED, IDENTICAL = "new", "changed", "identical"
KEPT, ALTERED, DELETED = "kept", "altered", "deleted"
INVALID, DUPLICATE, EMAIL_TAKEN, ID_TAKEN = "invalid", "duplicate", "email_taken", "id_taken"
IDENTITY_TAKEN = "identity_taken"
REASONS = {
    NEW: "It is not in Postgres.",
    CHANGED: "It has changed in the source since it was imported.",
    IDENTICAL: "It is equal in Postgres and the source.",
    KEPT: "It has changed in Postgres, or was never imported; Postgres wins.",
    ALTERED: "It differs in Postgres without a recorded update.",
    DELETED: "It was imported before and deleted from Postgres; it is not imported again.",
    INVALID: "It cannot be imported.",
    DUPLICATE: "It has the address, the id or an identity of another row.",
    EMAIL_TAKEN: "Its email belongs to another user in Postgres.",
    ID_TAKEN: "Its id belongs to a user with another email in Postgres.",
    IDENTITY_TAKEN: "One of its identities belongs to another user in Postgres.",
}
"""What may become of a row, and why where the row itself doesn't say more. Only NEW and CHANGED
ones are written."""
VERDICTS = tuple(REASONS)
REJECTED = (INVALID, DUPLICATE, EMAIL_TAKEN, ID_TAKEN, IDENTITY_TAKEN)
"""The verdicts of rows that cannot be imported."""

_NULLS = f"{NULL}\t" * (len(COLUMNS) + 4)
ANALYZE_RECORDS = "ANALYZE import_records (user_id, batch)"
"""Before a batch is looked for: the server takes one that it has not counted to have one row, and
would read all of them for each user."""
_LOCK = f"SELECT pg_advisory_xact_lock({LOCK_KEY})"
_STAGING = f"""
CREATE TEMP TABLE staged_users (
    row bigint, {RECORD_DEFINITIONS}, identities jsonb, revoked jsonb, operation uuid,
    digest bytea, raised integer NOT NULL DEFAULT 0,
    verdict text, reason text, other_row bigint, other_id uuid, base bytea
) ON COMMIT DROP;
CREATE TEMP TABLE staged_identities (
    row bigint, id uuid, issuer text, subject text, position bigint
) ON COMMIT DROP;
-- Few rows have these, most often none, and are found without reading all of them.
CREATE INDEX ON staged_users (row) WHERE identities IS NOT NULL;
CREATE INDEX ON staged_users (row) WHERE revoked IS NOT NULL;
CREATE INDEX ON staged_users (row) WHERE operation IS NOT NULL
"""
_ANALYZE = (
    "ANALYZE staged_users (row, id, email, email_key, verdict, identities, revoked, operation)"
)
_COPY_STAGED = (
    f"COPY staged_users (row, {COLUMN_NAMES}, identities, revoked, operation, digest,"
    " verdict, reason) FROM STDIN"
)
_SPREAD_IDENTITIES = """
INSERT INTO staged_identities
SELECT row, id, pair->>0, pair->>1, position
FROM staged_users, jsonb_array_elements(identities) WITH ORDINALITY AS given (pair, position)
WHERE identities IS NOT NULL
"""
# By hashes, which sort in half the time; where two collide, ranking finds nobody.
_ANY_DUPLICATES = """
SELECT count(DISTINCT uuid_hash_extended(id, 0)) < count(*)
    OR count(DISTINCT hashtextextended(email_key, 0)) < count(*)
FROM staged_users WHERE verdict = 'new'
"""
_UNPROVED = "(email_verified_at IS NULL AND unverified_since IS NOT NULL)"
_DUPLICATE_EMAILS = f"""
WITH ranked AS (
    SELECT row, email = email_key AS exact, {_UNPROVED} AS unproved, created_at,
           first_value(row) OVER rank AS winner,
           first_value({_UNPROVED}) OVER rank AS winner_unproved,
           first_value(email = email_key) OVER rank AS winner_exact,
           first_value(created_at) OVER rank AS winner_created_at
    FROM staged_users
    WHERE verdict = 'new' AND email_key IN (
        SELECT email_key FROM staged_users WHERE verdict = 'new'
        GROUP BY email_key HAVING count(*) > 1
    )
    WINDOW rank AS (
        PARTITION BY email_key
        ORDER BY {_UNPROVED}, email = email_key DESC, created_at NULLS LAST, id, row
    )
)
UPDATE staged_users s SET verdict = 'duplicate', other_row = winner, reason = CASE
    WHEN unproved AND NOT winner_unproved THEN '{duplicates.PROVED}'
    WHEN winner_exact AND NOT exact THEN '{duplicates.LOWER_CASE}'
    WHEN winner_created_at IS DISTINCT FROM ranked.created_at THEN '{duplicates.OLDER}'
    ELSE '{duplicates.FIRST}' END
FROM ranked WHERE s.row = ranked.row AND ranked.row <> winner
"""
# Which of them is right, nobody here can know; of rows with one address, too, the addresses decide.
_SHARED_IDS = f"""
UPDATE staged_users s SET verdict = 'duplicate',
    reason = '{duplicates.SAME_ID}',
    other_row = CASE WHEN s.row = first THEN last ELSE first END
FROM (
    SELECT id, min(row) AS first, max(row) AS last FROM staged_users WHERE verdict = 'new'
    GROUP BY id HAVING count(DISTINCT email_key) > 1
) shared
WHERE s.id = shared.id AND s.verdict = 'new'
"""
# Neither can it know whose an identity is. Of rows with one address, the losers claim nothing.
_SHARED_IDENTITIES = f"""
WITH claimed AS (
    SELECT i.* FROM staged_identities i JOIN staged_users s USING (row) WHERE s.verdict = 'new'
), pairs AS (
    -- Each of an identity's rows with the first other one: to join all with all would not end.
    SELECT row, CASE WHEN row_number() OVER rank = 1 THEN lead(row) OVER rank
        ELSE first_value(row) OVER rank END AS other_row
    FROM claimed
    WHERE (issuer, subject) IN (
        SELECT issuer, subject FROM claimed GROUP BY 1, 2 HAVING count(*) > 1
    )
    WINDOW rank AS (PARTITION BY issuer, subject ORDER BY row)
)
UPDATE staged_users s SET verdict = 'duplicate', other_row = shared.other_row,
    reason = '{duplicates.SAME_IDENTITY}'
FROM (SELECT row, min(other_row) AS other_row FROM pairs GROUP BY row) shared
WHERE s.row = shared.row
"""
_BROUGHT = """
    SELECT {} user_id, digest, batch, b.applied_at,
           coalesce((previous->>'raised')::int, 0) AS raised
    FROM import_records JOIN import_batches b ON b.number = batch
"""
_LATEST = f"({_BROUGHT.format('DISTINCT ON (user_id)')} ORDER BY user_id, batch DESC)"
FEW_LATEST = f"LATERAL ({_BROUGHT.format('')} WHERE user_id = s.id ORDER BY batch DESC LIMIT 1)"
"""What was brought of each user at last; the second where few are looked for at once, in `s`."""


def compare(staged: str, held: str, latest: str) -> str:
    """Write the SELECT that gives a verdict to each of the staged rows that is not simply new.

    Its relations: `staged`, of valid rows and their digests; `held`, HELD or FEW_HELD; and
    `latest`, _LATEST or FEW_LATEST.
    `raised` is by how much a user's epoch is above the source's, because imports have ended
    sessions. `is_brought` tells of a user whom an import has brought and who is still there.
    """
    return f"""
SELECT row, held AS base, raised, user_id IS NOT NULL AND brought IS NOT NULL AS is_brought,
    held_key <> staged_key AS gives_key, held_email <> staged_email AS gives_email, CASE
    WHEN user_id IS NULL THEN 'deleted'
    WHEN staged IN (held, lowered) THEN 'identical'
    WHEN held = brought AND revives THEN 'kept' -- Or sessions that were ended would go on.
    WHEN held = brought THEN 'changed'
    WHEN brought IS NULL AND held_key <> staged_key THEN 'id_taken'
    WHEN brought IS NULL OR updated_at > applied_at THEN 'kept'
    ELSE 'altered' END AS verdict
FROM (
    SELECT s.row, u.id AS user_id, u.email_key AS held_key, u.email AS held_email, u.updated_at,
           {DIGEST} AS held,
           CASE WHEN latest.raised > 0 THEN {digest_with("u.epoch - latest.raised")} END AS lowered,
           coalesce(latest.raised, 0) AS raised, s.epoch + latest.raised < u.epoch AS revives,
           s.digest AS staged, s.email_key AS staged_key, s.email AS staged_email,
           latest.digest AS brought, latest.applied_at
    FROM {staged} s
    LEFT JOIN {held} ON u.id = s.id
    LEFT JOIN {latest} latest ON latest.user_id = s.id
    LEFT JOIN applied_ops USING (operation)
    WHERE u.id IS NOT NULL OR latest.user_id IS NOT NULL
        OR outcome IN ('created', 'present') -- A reconciliation has brought them.
) found
"""


_COMPARE = f"""
UPDATE staged_users s SET base = found.base, raised = found.raised, verdict = found.verdict
FROM ({compare("(SELECT * FROM staged_users WHERE verdict = 'new')", HELD, _LATEST)}) found
WHERE s.row = found.row
"""
# Sessions end that the source has ended, and those of whoever loses a way to log in: the old server
# knows no epoch. A source whose epoch is above all that were held has ended them by itself.
_RAISE = """
WITH lost AS (
    SELECT DISTINCT s.row FROM staged_users s JOIN identities held ON held.user_id = s.id
    LEFT JOIN staged_identities given ON (given.row, given.issuer, given.subject)
        = (s.row, held.issuer, held.subject)
    WHERE s.verdict = 'changed' AND given.row IS NULL
)
UPDATE staged_users s SET raised = greatest(s.epoch, u.epoch + (
    s.epoch + s.raised > u.epoch OR s.password IS DISTINCT FROM u.password
    OR s.row IN (SELECT row FROM lost)
)::int) - s.epoch
FROM users u WHERE s.verdict = 'changed' AND u.id = s.id
"""
_EMAIL_TAKEN = """
UPDATE staged_users s SET verdict = 'email_taken', other_id = u.id FROM users u
WHERE s.verdict = '{verdict}' AND u.{column} = s.{column} AND u.id <> s.id
"""
# But a new user may have an address that its owner is just giving up: changes are written first.
_GIVEN_UP = """
AND NOT EXISTS (
    SELECT FROM staged_users o
    WHERE o.id = u.id AND o.verdict = 'changed' AND o.{column} <> s.{column}
)
"""
_IDENTITY_TAKEN = """
UPDATE staged_users s SET verdict = 'identity_taken', other_id = taken.user_id
FROM (
    SELECT DISTINCT ON (row) row, user_id
    FROM staged_identities s JOIN identities i USING (issuer, subject)
    WHERE i.user_id <> s.id ORDER BY row, position
) taken
WHERE s.row = taken.row AND s.verdict IN ('new', 'changed')
"""
_ARRIVED = """
SELECT encode(sha256(coalesce(string_agg(digest, '' ORDER BY row), '')), 'hex') FROM staged_users
"""
_DECISIONS = f"""
SELECT encode(sha256(coalesce(string_agg(decisions, '' ORDER BY part), '')), 'hex') FROM (
    SELECT row / {DECISIONS_PART} AS part, sha256(convert_to(string_agg(concat_ws(
        ':', row, verdict, other_row, other_id,
        CASE WHEN verdict = 'changed' THEN encode(base, 'hex') END
    ), ' ' ORDER BY row), 'UTF8')) AS decisions
    FROM staged_users WHERE verdict <> 'new' GROUP BY 1
) parts
"""
_ABSENT = """
SELECT count(DISTINCT r.user_id) FROM import_records r JOIN users u ON u.id = r.user_id
WHERE NOT EXISTS (SELECT FROM staged_users s WHERE s.id = r.user_id)
"""
_REASONS = ", ".join(f"('{verdict}', '{reason}')" for verdict, reason in REASONS.items())
_EXPLAINED = f"""
SELECT row, verdict, coalesce(s.reason, general.reason) AS reason, other_row, id, other_id
FROM staged_users s JOIN (VALUES {_REASONS}) AS general (verdict, reason) USING (verdict)
"""
_REPORT = f"""
SELECT verdict, reason, row, other_row, id::text, other_id::text FROM ({_EXPLAINED}) explained
WHERE verdict = ANY (string_to_array(:verdicts, ',')) ORDER BY row
"""
_REPORT_LINES = f"""
SELECT string_agg(line, '' ORDER BY row) FROM (
    SELECT row, CASE WHEN verdict IN ('new', 'identical', 'changed')
        THEN '{{"row": ' || row || ', "verdict": "' || verdict
            || '", "user_id": "' || id || E'"}}\\n'
        ELSE json_strip_nulls(json_build_object(
            'row', row, 'verdict', verdict, 'user_id', id, 'reason', reason,
            'other_row', other_row, 'other_id', other_id))::text || E'\\n' END AS line
    FROM ({_EXPLAINED}) explained
) lines GROUP BY row / 1000 ORDER BY row / 1000
"""


def begin(connection: Connection, *, write: access.Rights | None) -> None:
    """Begin a transaction that is bounded by the connection's deadline alone.

    One that writes, which needs the rights of `write`, has an empty staging table. Raises
    TransferRefused where nothing can be written or the schema is not ready for it.
    """
    mode = "READ COMMITTED" if write is not None else "REPEATABLE READ READ ONLY"
    connection.run_script(
        f"BEGIN ISOLATION LEVEL {mode}; {LIFT_LIMITS};"
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s';"
        f"SET LOCAL client_connection_check_interval = '{ORPHAN_CHECK}';"
        "SET LOCAL timezone = 'UTC'; SET LOCAL bytea_output = 'hex';"
        "SET LOCAL work_mem = '64MB'; SET LOCAL jit = off;"
        # For the temporary tables: a coarse look is enough to choose joins by.
        "SET LOCAL default_statistics_target = 10;"
        # The server takes a digest to be as cheap as a sum.
        "SET LOCAL parallel_setup_cost = 100; SET LOCAL parallel_tuple_cost = 0.01;"
        "SET LOCAL ai_coder.as_given = 'on';"
        "SET LOCAL idle_in_transaction_session_timeout = "
        f"'{IDLE_SECONDS if write is not None else READING_IDLE_SECONDS}s'"
    )
    if write is not None:
        access.require_writable(connection, write)
        access.require_adopted(connection)
        if not connection.execute("SELECT to_regclass('applied_ops')")[0][0]:
            raise TransferRefused("The schema lacks migrations: run `make migrate-schema`.")
        connection.run_script(_STAGING)


def lock(connection: Connection) -> None:
    """Wait to be the only one who imports or rolls back, until the transaction ends.

    Raises StoreUnavailable where another one doesn't end.
    """
    try:
        connection.run_script(_LOCK)
    except StoreUnavailable as error:
        if str(error.cause).startswith(sqlstate.LOCK_NOT_AVAILABLE):
            raise StoreUnavailable(
                cause=f"another import or rollback has not ended within {LOCK_SECONDS} s"
            ) from error
        raise


def wait_for_end(connection: Connection) -> None:
    """Wait until whoever has the lock of `lock` has ended, up to the connection's deadline."""
    connection.run_script(f"SET LOCAL lock_timeout = 0; {_LOCK}")


@contextmanager
def fill(connection: Connection) -> Iterator[Callable[[bytes], None]]:
    """Give the function that sends rows in the text format of COPY to the staging table."""
    with connection.copy_in(_COPY_STAGED) as send:
        yield send


def staged_line(
    row: int,
    record: UserRecord,
    digest: bytes,
    revoked: Sequence[tuple[str, float]] = (),
    operation: str | None = None,
) -> str:
    """Write a row of the staging table.

    `revoked` has pairs of a session and its end in seconds since 1970, and `operation` is that of a
    user who is pending.
    """
    identities = record.identities
    return (
        f"{row}\t{copy_line(record)}\t{escaped(json.dumps(identities)) if identities else NULL}"
        f"\t{escaped(json.dumps(revoked)) if revoked else NULL}\t{operation or NULL}"
        f"\t\\\\x{digest.hex()}\tnew\t{NULL}\n"
    )


def invalid_line(row: int, reason: str) -> str:
    """Write a row of the staging table that only tells why the source's cannot be used."""
    return f"{row}\t{_NULLS}{INVALID}\t{escaped(reason)}\n"


def classify(connection: Connection) -> None:
    """Give each staged row its verdict. A row that COPY brought has `new` or `invalid`."""
    connection.run_script(_ANALYZE)
    # Most files hold none, and to see that is cheaper than to rank.
    if connection.execute(_ANY_DUPLICATES)[0][0]:
        connection.run_script(f"{_SHARED_IDS}; {_DUPLICATE_EMAILS}")
    connection.run_script(f"{_SPREAD_IDENTITIES}; ANALYZE staged_identities; {_SHARED_IDENTITIES}")
    if any(is_any(connection, table) for table in ("users", "import_records", "applied_ops")):
        # Once more, or the server would join as if nobody had changed.
        connection.run_script(f"{_COMPARE}; {_IDENTITY_TAKEN}; ANALYZE staged_users (verdict)")
        find_taken_emails(connection)
        connection.run_script(_RAISE)


def find_taken_identities(connection: Connection) -> None:
    """Reject what would be written with an identity of another user."""
    connection.run_script(_IDENTITY_TAKEN)


def find_taken_emails(connection: Connection) -> None:
    """Reject what would be written under the address of another user."""
    for verdict in (CHANGED, NEW):  # In this order: who is rejected gives no address up.
        statement = _EMAIL_TAKEN + (_GIVEN_UP if verdict == NEW else "")
        for column in ("email_key", "email"):
            connection.run_script(statement.format(verdict=verdict, column=column))


def counts(connection: Connection) -> dict[str, int]:
    """Count the staged rows by verdict."""
    statement = "SELECT verdict, count(*) FROM staged_users GROUP BY verdict"
    found: dict[str, int] = dict(map(tuple, connection.execute(statement)))
    return {verdict: found.get(verdict, 0) for verdict in VERDICTS}


def stream(
    connection: Connection,
    statement: str,
    at_once: int = FETCH_ROWS,
    fetch_seconds: float | None = None,
    **parameters: Value,
) -> Iterator[Row]:
    """Stream the rows of a query through a cursor, whose every fetch may have a time of its own."""
    connection.execute(f"DECLARE streamed NO SCROLL CURSOR FOR {statement}", **parameters)
    while True:
        if fetch_seconds is not None:
            connection.set_deadline(time.monotonic() + fetch_seconds)
        if not (fetched := connection.execute(f"FETCH {at_once} FROM streamed")):
            break
        yield from fetched
    connection.run_script("CLOSE streamed")


def report(connection: Connection, verdicts: Iterable[str]) -> Iterator[Row]:
    """Stream verdict, reason, row number, other row, id and other id, by row number."""
    return stream(connection, _REPORT, verdicts=",".join(verdicts))


def report_lines(connection: Connection) -> Iterator[bytes]:
    """Stream what became of every row, as JSON lines, many at a time."""
    for (lines,) in stream(connection, _REPORT_LINES, at_once=FETCH_BLOCKS):
        yield lines.encode()


def absent(connection: Connection) -> int:
    """Count the users of earlier imports whom the source no longer has."""
    return int(connection.execute(_ABSENT)[0][0])


def decisions_sha256(connection: Connection, counts: dict[str, int]) -> str:
    """Digest what was decided for every row that is not simply new, and on what ground.

    `counts` are those of the rows by verdict.
    """
    if counts[NEW] == sum(counts.values()):
        return hashlib.sha256().hexdigest()
    return str(connection.execute(_DECISIONS)[0][0])


def arrived_sha256(connection: Connection) -> str:
    """Digest the digests that arrived, by row number."""
    return str(connection.execute(_ARRIVED)[0][0])


def is_any(connection: Connection, table: str) -> bool:
    """Tell whether a table has any row."""
    return bool(connection.execute(f"SELECT EXISTS (SELECT FROM {table})")[0][0])
