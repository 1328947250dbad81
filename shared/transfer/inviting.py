"""Invites by mail who has come along without a password: the link of a mail lets them choose one.

Each run hands the outbox a number of mails, spread over time, and notes in the audit who is
invited. So it can be run again and again until nobody is left: whoever was invited within the week
for which the link works, or has a password by now, is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.database.pool import Database
from shared.model.mails import LIFETIMES, MAX_AGE
from shared.store.postgres.outbox_sql import digest
from shared.transfer import access, staging
from shared.transfer.steps import commit, transaction

PER_HOUR = 500
"""Mails that are due within an hour: as many as new senders are trusted with."""
MAX_HOURS = MAX_AGE // 3600 - 4
"""For which mails are spread: the outbox gives one up that is a day old."""

_UNINVITED = f"""password IS NULL AND coalesce(provider, 'local') = 'local'
    AND disabled_at IS NULL AND email_key IS NOT NULL AND NOT EXISTS (
        SELECT FROM auth_events e WHERE e.user_id = u.id AND e.kind = 'invited'
        AND e.at > CURRENT_TIMESTAMP - interval '{LIFETIMES["invitation"]} seconds'
    )"""
_COUNT = f"SELECT count(*) FROM users u WHERE {_UNINVITED}"
_INVITE = f"""
WITH chosen AS (
    SELECT u.*, row_number() OVER (ORDER BY u.id) AS n FROM users u WHERE {_UNINVITED}
    ORDER BY u.id LIMIT :most::int
), noted AS (
    INSERT INTO auth_events (at, kind, user_id, actor)
    SELECT CURRENT_TIMESTAMP, 'invited', id, :run_by FROM chosen
), invited AS (
    INSERT INTO mail_outbox (id, kind, recipient, user_id, epoch, email_digest, locale, due_at)
    SELECT gen_random_uuid(), 'invitation', email, id, epoch, {digest("email_key")}, locale,
        CURRENT_TIMESTAMP + (n - 1) * interval '1 hour' / :per_hour::int
    FROM chosen RETURNING due_at
)
SELECT count(*), coalesce(extract(epoch FROM max(due_at) - CURRENT_TIMESTAMP), 0)::float8
FROM invited
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """How many are invited now, and how many are still to be."""

    invited: int
    left: int
    seconds: float
    """Until the last mail is due."""


def waiting(database: Database) -> int:
    """Count who is to be invited. Raises StoreUnavailable and TransferRefused."""
    with transaction(database, write=None) as connection:
        return int(connection.execute(_COUNT)[0][0])


def invite(database: Database, *, per_hour: int, most: int, run_by: str) -> Invited:
    """Write the mails, `most` at most, and who has been invited, in one transaction.

    Raises StoreUnavailable, also where an import or another one of these does not end, and
    TransferRefused.
    """
    most = min(most, per_hour * MAX_HOURS)
    with transaction(database, write=access.INVITATION) as connection:
        staging.lock(connection)
        ((number, seconds),) = connection.execute(
            _INVITE, most=most, per_hour=per_hour, run_by=run_by
        )
        ((left,),) = connection.execute(_COUNT)
        commit(database, connection, lambda fresh: int(fresh.execute(_COUNT)[0][0]) <= left)
    return Invited(invited=number, left=left, seconds=seconds)
