"""Makes the keys of email addresses that SQL could not make, or made wrong, from `email_key` alone.

The migration 0007 lists the users concerned in `pending_email_keys`, and so does a trigger for
those whom the old server adds. A batch is one transaction; whatever stops between two of them, the
rest of the list stays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from shared.database.connection import Connection
from shared.database.statement import Statement
from shared.errors import StoreRefused
from shared.model.emails import email_key
from shared.observe import log
from shared.store.postgres.statements import next_epoch

LOCK_KEY = 4_101_202_613
"""The advisory lock under which a batch is corrected."""
BATCH = 2000
"""Users."""
UNLINKED = "identity_unlinked"
"""The audit's kind for an identity that was taken from a user whose key had been another's."""
MIN_SECONDS = 1.0
"""For a batch."""

# Who came past the trigger: by a restore, a replication, or while it was switched off. An instance
# leaves out whom SQL cannot judge, and who shares an address: it would try in vain.
_LOST = """
SELECT id FROM users u WHERE email_key IS NULL AND email_key(email) IS NOT NULL
AND NOT EXISTS (SELECT FROM users o WHERE o.email_key = email_key(u.email))
"""
IS_PENDING = Statement(
    "pending_email_keys",
    f"SELECT EXISTS (SELECT FROM pending_email_keys) OR EXISTS ({_LOST})",
    is_prepared=False,
)
ENLIST_LOST = Statement(
    "enlist_lost_keys",
    f"INSERT INTO pending_email_keys (user_id) {_LOST} ON CONFLICT DO NOTHING",
    is_prepared=False,
)
_UNLISTED = """
SELECT id FROM users u WHERE email_key IS NULL
AND NOT EXISTS (SELECT FROM pending_email_keys p WHERE p.user_id = u.id)
"""
_HAS_LIST = "SELECT to_regclass('pending_email_keys') IS NOT NULL"
_COUNT = "SELECT count(*) FROM pending_email_keys"
_BEGIN = f"""
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL ai_coder.as_given = 'on'; SELECT pg_advisory_xact_lock({LOCK_KEY})
"""
_KEYED = """
SELECT u.id::text, email, email_key FROM pending_email_keys p JOIN users u ON u.id = p.user_id
WHERE email_key IS NOT NULL LIMIT :limit::int
"""
_TAKE_AWAY = """
WITH given AS (SELECT (e->>0)::uuid AS id, e->>1 AS key FROM json_array_elements(:keys::json) e),
noted AS (UPDATE pending_email_keys SET former_key = key FROM given WHERE user_id = id)
UPDATE users u SET email_key = NULL FROM given g WHERE u.id = g.id
"""
# Of users with one address the one in lower case comes first, as in 0002, and then the oldest.
_KEYLESS = """
SELECT p.user_id::text, u.email, p.former_key IS NOT NULL
FROM pending_email_keys p LEFT JOIN users u ON u.id = p.user_id
ORDER BY u.email = email_key(u.email) DESC NULLS LAST, u.created_at, p.user_id LIMIT :limit::int
"""
_GIVE = """
WITH given AS (SELECT (e->>0)::uuid AS id, e->>1 AS key FROM json_array_elements(:keys::json) e)
UPDATE users u SET email_key = g.key FROM given g
WHERE u.id = g.id AND NOT EXISTS (SELECT FROM users o WHERE o.email_key = g.key)
RETURNING u.id::text
"""
# A trigger or a rule of the operator's may do that.
_SWALLOWED = """
SELECT EXISTS (
    SELECT FROM json_array_elements(:keys::json) e JOIN users u ON u.id = (e->>0)::uuid
    WHERE email_key IS NULL AND NOT EXISTS (SELECT FROM users o WHERE o.email_key = e->>1)
)
"""
# An address leads a provider's user to an account, so that one who was linked while the address
# was wrong is somebody else. Linking dropped the owner's password: one that is there is theirs.
_CUT_OFF = f"""
WITH given AS (SELECT e::uuid AS id FROM json_array_elements_text(:user_ids::json) e),
removed AS (
    DELETE FROM identities i USING given g WHERE i.user_id = g.id
    AND i.created_at >= (SELECT applied_at FROM schema_migrations WHERE version = 2)
    RETURNING user_id, issuer, subject
), ended AS (
    UPDATE users SET password = NULL, epoch = {next_epoch("epoch")}
    WHERE id IN (SELECT user_id FROM removed)
)
INSERT INTO auth_events (at, kind, user_id, actor)
SELECT CURRENT_TIMESTAMP, '{UNLINKED}', user_id, concat(issuer, ' ', subject) FROM removed
RETURNING user_id::text
"""
_DONE = """
DELETE FROM pending_email_keys
WHERE user_id IN (SELECT e::uuid FROM json_array_elements_text(:user_ids::json) e)
"""
_WITHOUT = "SELECT id::text, email FROM users WHERE email_key IS NULL ORDER BY id"
_HOLDERS = """
SELECT email_key, id::text FROM users
WHERE email_key IN (SELECT json_array_elements_text(:keys::json))
"""
_UNLINKED = f"""
SELECT user_id::text, actor, at FROM auth_events WHERE kind = '{UNLINKED}' ORDER BY at, user_id
"""


class Correction(NamedTuple):
    """What was done to users, by their ids."""

    corrected: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Whose address another user has, in another spelling: they stay without a key."""
    cut_off: tuple[str, ...] = ()
    """From whom identity and password were taken, and whose sessions ended."""


Report = Callable[[Correction], None]


def log_correction(correction: Correction) -> None:
    """Report a correction as a line of the log."""
    log.write(
        "WARNING" if correction.without or correction.cut_off else "INFO",
        "Keys of email addresses were corrected",
        corrected=len(correction.corrected),
        without_key=len(correction.without),
        identities_unlinked=correction.cut_off,
    )


def correct(connection: Connection, deadline: float, report: Report = log_correction) -> None:
    """Make every pending key, before a reading of `time.monotonic()`; `report` gets each batch.

    First all wrong keys are taken away, and then the right ones given. A key that another user has
    is not taken from that one. A schema without the list has nothing pending. Raises StoreRefused
    where time runs out, or a key cannot be written: what has been done stays.
    """
    if not has_list(connection) or not connection.execute(IS_PENDING)[0][0]:
        return
    while _take_away(connection, deadline):
        pass
    while correction := _give(connection, deadline):
        report(correction)


def enlist_all(connection: Connection) -> None:
    """Have everybody without a key looked at again: nobody else may have their address any more."""
    if not has_list(connection) or not connection.execute(f"SELECT EXISTS ({_UNLISTED})")[0][0]:
        return
    connection.run_script(_BEGIN)  # One after the other, or a strict isolation refuses it.
    connection.execute(
        f"INSERT INTO pending_email_keys (user_id) {_UNLISTED} ON CONFLICT DO NOTHING"
    )
    connection.run_script("COMMIT")


def has_list(connection: Connection) -> bool:
    """Tell whether the schema has the list of what is pending."""
    return bool(connection.execute(_HAS_LIST)[0][0])


def users_without(connection: Connection) -> list[tuple[str, str]]:
    """Give the id of each user without a key, and of the one who has the same address."""
    wanted = {user_id: email_key(email) for user_id, email in connection.execute(_WITHOUT)}
    holders = dict(map(tuple, connection.execute(_HOLDERS, keys=json.dumps([*wanted.values()]))))
    return [(user_id, holders.get(key, "")) for user_id, key in wanted.items()]


def unlinked(connection: Connection) -> list[tuple[str, str]]:
    """Give who lost an identity by a correction, and issuer and subject of it."""
    return [(user_id, identity) for user_id, identity, _ in connection.execute(_UNLINKED)]


def _take_away(connection: Connection, deadline: float) -> bool:
    """Take wrong keys from a batch of users, and say whether there may be more."""
    _begin(connection, deadline)
    found = connection.execute(_KEYED, limit=BATCH)
    wrong = [(user_id, key) for user_id, email, key in found if key != email_key(email)]
    if wrong:
        connection.execute(_TAKE_AWAY, keys=json.dumps(wrong))
    right = {user_id for user_id, *_ in found} - {user_id for user_id, _ in wrong}
    connection.execute(_DONE, user_ids=json.dumps([*right]))
    connection.run_script("COMMIT")
    return bool(found)


def _give(connection: Connection, deadline: float) -> Correction | None:
    """Give a batch of users their keys; None where nobody was left."""
    _begin(connection, deadline)
    found = connection.execute(_KEYLESS, limit=BATCH)
    if not found:
        connection.run_script("COMMIT")
        return None
    keys = {user_id: email_key(email) for user_id, email, _ in found if email is not None}
    exact = {user_id for user_id, email, _ in found if email == keys.get(user_id)}
    first: dict[str, str] = {}
    for user_id in sorted(keys, key=lambda user_id: user_id not in exact):
        first.setdefault(keys[user_id], user_id)
    wanted = json.dumps([(user_id, key) for key, user_id in first.items()])
    given = {user_id for (user_id,) in connection.execute(_GIVE, keys=wanted)}
    if len(given) < len(first) and connection.execute(_SWALLOWED, keys=wanted)[0][0]:
        raise StoreRefused(
            cause="an UPDATE of users writes nothing, and keys of email addresses are missing: "
            "drop the trigger or the rule on users that swallows it, and run `make migrate-schema`"
        )
    damaged = json.dumps([user_id for user_id, _, is_damaged in found if is_damaged])
    cut_off = {user_id for (user_id,) in connection.execute(_CUT_OFF, user_ids=damaged)}
    connection.execute(_DONE, user_ids=json.dumps([user_id for user_id, *_ in found]))
    connection.run_script("COMMIT")
    without = tuple(user_id for user_id in keys if user_id not in given)
    return Correction(tuple(given), without, tuple(sorted(cut_off)))


def _begin(connection: Connection, deadline: float) -> None:
    if deadline - time.monotonic() < MIN_SECONDS:
        ((left,),) = connection.execute(_COUNT)
        raise StoreRefused(
            cause=f"{left} keys of email addresses are still to be corrected, which takes longer "
            "than a request may: run `make migrate-schema`"
        )
    connection.run_script(_BEGIN)
