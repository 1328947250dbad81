"""Writes every user to a file in the old server's shape, so that the JSON mode can take over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace

from shared.database.connection import Connection
from shared.database.pool import Database
from shared.database.replica import PassedOver, Replica
from shared.errors import TransferRefused
from shared.formats.password_hashes import BCRYPT
from shared.model.user_record import (
    REVOKED,
    UserRecord,
    as_written,
    digest,
    to_json,
)
from shared.store.postgres.rows import parse_json
from shared.transfer import access, staging
from shared.transfer.steps import Event, Outcome, Progress, begin, transaction
from shared.transfer.users_table import DIGEST, HELD, read_from

WITHOUT_TIME = "without_time"
FETCH_SECONDS = 60.0
"""For each thousand users of a replica; one that takes longer is away."""
_WITHOUT_TIME_REASON = (
    "A time is infinite, before the year 1 or after 9999 in Postgres; the file has null for it."
)
# As JSON, because in an older schema they had no user. An end is rounded up to the second, and is
# one that a file can have.
_REVOKED = """(
    SELECT (to_jsonb(s)->>'user_id')::uuid AS user_id, json_object_agg(
        sid, ceil(extract(epoch FROM least(ends_at, '9999-12-31 23:59:59Z')))::bigint
        ORDER BY ends_at, sid) AS ends
    FROM revoked_sessions s WHERE ends_at > CURRENT_TIMESTAMP GROUP BY 1
)"""
_EXPORT = f"""
SELECT {read_from("u")}, i.pairs::text, encode({DIGEST}, 'hex'),
       revoked.ends::text
FROM {HELD} LEFT JOIN {_REVOKED} revoked ON revoked.user_id = u.id
ORDER BY created_at NULLS LAST, u.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How many users were written, and the digest of their digests, as written, in their order."""

    rows: int
    users_sha256: str
    not_for_old_server: int
    """Users whose hash the old Node server, which knows bcrypt alone, cannot verify."""
    as_of: float | None = None
    """What a replica may lack was committed later than this, in seconds since 1970."""


def export(
    database: Database,
    write: Callable[[bytes], object],
    replica: Replica | None = None,
    write_anew: Callable[[], object] = lambda: None,
) -> Generator[Event, None, Exported]:
    """Write every user as the old server would, from one snapshot of a read-only transaction.

    It is the replica's, where there is one that can be read to the end; else it begins again with
    the primary, after `write_anew`. Each user's digest is computed here and in the database. Names
    whose time is written as null. Raises TransferRefused where digests differ or not every user may
    be read, StoreUnavailable, and what `write` raises.
    """
    if replica is not None:
        with suppress(PassedOver), replica.reading("export") as (connection, as_of):
            begin(connection, write=None)
            done = yield from _export(connection, write, FETCH_SECONDS)
            return replace(done, as_of=as_of)
        write_anew()
    with transaction(database, write=None) as connection:
        return (yield from _export(connection, write))


def _export(
    connection: Connection, write: Callable[[bytes], object], fetch_seconds: float | None = None
) -> Generator[Event, None, Exported]:
    digests = hashlib.sha256()
    count = not_for_old_server = 0
    tables = access.readable(connection, "users", "identities", "revoked_sessions")
    if "users" in tables.lacking:
        raise TransferRefused("There is no table users on the search path: nobody to export.")
    for *columns, pairs, held, revoked in staging.stream(
        connection, tables.sql(_EXPORT), fetch_seconds=fetch_seconds
    ):
        identities = tuple((i, s) for i, s in parse_json(pairs))
        record = UserRecord._make((*columns, identities))
        row_digest = digest(record)
        if row_digest.hex() != held:
            raise TransferRefused(f"User {record.id} arrived differently from how it is stored.")
        row = to_json(record)
        written = as_written(record)
        if written is not record:
            row_digest = digest(written)
        if None in (row.get("createdAt", ""), row.get("updatedAt", "")):
            yield Outcome(WITHOUT_TIME, _WITHOUT_TIME_REASON, user_id=record.id)
        if record.password is not None and not BCRYPT.fullmatch(record.password):
            not_for_old_server += 1
        digests.update(row_digest)
        if revoked:
            row[REVOKED] = parse_json(revoked)
        text = json.dumps(row, indent=2, ensure_ascii=False)
        write((",\n  " if count else "[\n  ").encode() + text.replace("\n", "\n  ").encode())
        count += 1
        if count % staging.FETCH_ROWS == 0:
            yield Progress("write", count)
    write(b"\n]" if count else b"[]")
    return Exported(
        rows=count, users_sha256=digests.hexdigest(), not_for_old_server=not_for_old_server
    )
