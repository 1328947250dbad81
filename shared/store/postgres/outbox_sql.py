"""The outbox in SQL: a mail is written with the change that it tells of, leased and delivered."""

from __future__ import annotations

from shared.database.statement import Statement
from shared.model.mails import LEASE_SECONDS, MAX_AGE
from shared.store.postgres.attempt_sql import after, spend

HOUR, DAY = "3600", "86400"


def digest(key: str) -> str:
    """Write the digest of an email key; the twin of `shared.model.mails.digest_of`."""
    return f"left(encode(sha256(convert_to({key}, 'UTF8')), 'hex'), 32)"


def enqueue(kind: str, source: str, *, where: str = "true") -> str:
    """Write the INSERT that hands the outbox a mail to each user `u` that `source` gives, if any.

    `kind` is an expression. Nothing is written where `:sends_mail` is false. Repeating it changes
    nothing.
    """
    return f"""INSERT INTO mail_outbox
        (id, kind, recipient, user_id, epoch, email_digest, locale, asked_from)
    SELECT :mail_id::uuid, {kind}, u.email, u.id, u.epoch,
        coalesce({digest("u.email_key")}, ''), u.locale, :client
    FROM {source} WHERE :sends_mail::bool AND {where}
    ON CONFLICT (id) DO NOTHING"""


def is_known_or_proved(user: str = "u") -> str:
    """Write whether an address may be told things: one that is not proved may be a stranger's."""
    return f"({user}.email_verified_at IS NOT NULL OR {user}.unverified_since IS NULL)"


def count_mail(condition: str) -> str:
    """Write what counts a mail to an address, if it is to be counted; `mail_left` has a row then.

    It has none where the address got too many. Nobody learns of it.
    """
    return f"""mail_hour AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT :hour_key::text, :hour_limit::int - 1, {after(HOUR)}
    WHERE :sends_mail::bool AND {condition}
    {spend(":hour_limit", HOUR, prolongs=False)} RETURNING remaining
), mail_day AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT :day_key::text, :day_limit::int - (remaining >= 0)::int, {after(DAY)} FROM mail_hour
    {spend(":day_limit", DAY, prolongs=False)} RETURNING remaining
), mail_left AS (
    SELECT FROM mail_hour h, mail_day d WHERE h.remaining >= 0 AND d.remaining >= 0
)"""


LEASE = Statement(
    "lease_mails",
    f"""
WITH nobodys AS (
    DELETE FROM mail_outbox WHERE id = ANY (ARRAY(
        SELECT id FROM mail_outbox WHERE recipient IS NULL ORDER BY due_at
        LIMIT 1000 FOR UPDATE SKIP LOCKED
    ))
)
UPDATE mail_outbox SET due_at = {after(str(LEASE_SECONDS))}
WHERE id = ANY (ARRAY(
    SELECT id FROM mail_outbox WHERE due_at <= CURRENT_TIMESTAMP AND recipient IS NOT NULL
    ORDER BY due_at LIMIT :limit::int FOR UPDATE SKIP LOCKED
))
RETURNING id::text, kind, recipient, coalesce(user_id::text, ''), coalesce(epoch, 0),
    coalesce(email_digest, ''), locale, asked_from, extract(epoch FROM created_at)::float8, tries,
    created_at <= CURRENT_TIMESTAMP - interval '{MAX_AGE} seconds'
""",
)
DELIVERED = Statement("mail_delivered", "DELETE FROM mail_outbox WHERE id = :mail_id::uuid")
POSTPONE = Statement(
    "postpone_mail",
    f"""
UPDATE mail_outbox SET due_at = {after(":seconds")}, tries = tries + 1
WHERE id = :mail_id::uuid
""",
)
STATUS = Statement(
    "outbox_status",
    """
SELECT count(*), coalesce(extract(epoch FROM CURRENT_TIMESTAMP - min(created_at)), 0)::float8
FROM mail_outbox WHERE recipient IS NOT NULL
""",
    is_prepared=False,
)
