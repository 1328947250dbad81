"""What the Postgres store says: all SQL about users that requests need.

What is deleted, opened or ended by time is so by the database's clock, never by an instance's:
one instance whose clock is wrong would do it for all. What happens is written down by that clock.

Parameters are text, and each statement may be repeated. `u` is a user, `g` a given identity.
"""

from __future__ import annotations

import re

from shared.model.throttling import success_key
from shared.model.users import MAX_EPOCH, MAX_IDENTITIES, TOKEN_MAX_SECONDS
from shared.store.postgres.attempts import after, begin, spend, succeed

MAX_EVENTS = 100
"""Of the audit, in what users are told of their accounts."""
MAX_DELETED = 1000
"""Expired rows of each table that are deleted at once."""
KEPT_HOURS = 24
"""For which a revocation outlives its session, whose cookie an instance with a slow clock takes."""


def next_epoch(epoch: str) -> str:
    """Give the twin of `shared.model.users.next_epoch`."""
    return f"(CASE WHEN {epoch} < {MAX_EPOCH} THEN {epoch} + 1 ELSE {MAX_EPOCH // 2} END)"


_USER = "u.id, u.email, u.name, u.provider, u.epoch"

RESERVE_SIGN_UP = f"""
WITH reserved AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    VALUES ($1, $3::int - 1, {after("$2")})
    {spend("$3")} RETURNING remaining, expires_at
), event AS (
    INSERT INTO auth_events (at, kind, client)
    SELECT CURRENT_TIMESTAMP, 'signup_throttled', $4 FROM reserved WHERE remaining = -1
)
SELECT remaining >= 0, extract(epoch FROM expires_at - CURRENT_TIMESTAMP)::float8 FROM reserved
"""
_GIVEN = """(
    SELECT e->>0 AS issuer, e->>1 AS subject, n
    FROM json_array_elements($1::json) WITH ORDINALITY AS given (e, n)
) g"""
# An identity that is somebody else's by now violates the key, and nothing at all is done.
_ADD_IDENTITIES = f"""
INSERT INTO identities (issuer, subject, user_id)
SELECT issuer, subject, t.id FROM target t CROSS JOIN {_GIVEN}
WHERE NOT EXISTS (
    SELECT FROM identities i
    WHERE (i.issuer, i.subject, i.user_id) = (g.issuer, g.subject, t.id)
)
"""
# The update that changes nothing is for a repeated call whose first answer was lost: it waits for
# the first, and gives the row if it is the caller's own. Another's row is not given.
CREATE = f"""
WITH target AS (
    INSERT INTO users AS u (id, email, email_key, password, name, provider)
    VALUES ($2::uuid, $3::text, $3::text, $4, $5, $6)
    ON CONFLICT (email_key) DO UPDATE SET email_key = u.email_key WHERE u.id = excluded.id
    RETURNING {_USER}
), identity AS ({_ADD_IDENTITIES}), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT id, CURRENT_TIMESTAMP, 'signup', id, $7 FROM target ON CONFLICT (id) DO NOTHING
)
SELECT * FROM target
"""
BEGIN_LOGIN = begin(f"SELECT {_USER}, u.password FROM users u WHERE email_key = $1", "login")
BEGIN_REAUTHENTICATION = begin(
    f"""SELECT {_USER}, u.password FROM users u WHERE id = $1::uuid AND epoch = $14::int
        AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = $15)""",
    "reauthentication",
)
END_LOGIN = succeed("login", "login", "SELECT 1 FROM allowed")
# A repeated call whose first answer was lost finds its own hash, which nobody else can have made.
CHANGE_PASSWORD = succeed(
    "password_changed",
    "reauthentication",
    f"""UPDATE users u SET password = $15, epoch = {next_epoch("$13::int")}
        WHERE id = $12::uuid AND EXISTS (SELECT FROM allowed)
        AND ((epoch = $13::int AND password IS NOT DISTINCT FROM $14)
            OR (epoch = {next_epoch("$13::int")} AND password = $15))
        RETURNING {_USER}""",
)
# An import remembers the hash that it replaced, and whom it brought, so that it brings them once.
DELETE_USER = succeed(
    "account_deleted",
    "reauthentication",
    """DELETE FROM users WHERE id = $12::uuid AND EXISTS (SELECT FROM allowed)
        AND epoch = $13::int AND password IS NOT DISTINCT FROM $14 RETURNING id""",
    """, forgotten AS (
        UPDATE import_records SET previous = NULL
        WHERE user_id = $12::uuid AND EXISTS (SELECT FROM done)
    )""",
    """UNION ALL SELECT user_id FROM auth_events
        WHERE id = $8::uuid AND kind = 'account_deleted'""",
)
SELECT_USER = f"""
SELECT {_USER} FROM users u WHERE id = $1::uuid
AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = $2)
"""
IS_REVOKED = "SELECT 1 FROM revoked_sessions WHERE sid = $1"
IS_OVER = f"{IS_REVOKED} UNION ALL SELECT 1 FROM applied_ops WHERE operation = $2::uuid"
ACCOUNT = f"""
SELECT {_USER}, created_at, updated_at, password IS NOT NULL,
    (SELECT json_agg(json_build_array(issuer, subject) ORDER BY i.created_at, issuer)::text
        FROM identities i WHERE user_id = u.id),
    (SELECT json_agg(json_build_object('at', at, 'kind', kind, 'client', client))::text
        FROM (SELECT * FROM auth_events WHERE user_id = u.id ORDER BY at DESC, id DESC
            LIMIT {MAX_EVENTS}) e)
FROM users u WHERE id = $1::uuid
AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = $2)
"""
REPLACE_HASH = """
UPDATE users SET password = $3 WHERE id = $1::uuid AND password = $2 RETURNING id
"""
_FORGOTTEN = f"CURRENT_TIMESTAMP - interval '{KEPT_HOURS} hours'"
REVOKE_SESSION = f"""
WITH revoked AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT $1, $2::timestamptz, $3::uuid WHERE $2::timestamptz > {_FORGOTTEN}
    ON CONFLICT (sid) DO NOTHING RETURNING sid
)
INSERT INTO auth_events (at, kind, user_id, client)
SELECT CURRENT_TIMESTAMP, 'logout', $3::uuid, $4 FROM revoked
"""
REVOKE_ALL = f"""
WITH raised AS (
    UPDATE users SET epoch = {next_epoch("epoch")} WHERE id = $1::uuid AND epoch = $2::int
    AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = $3) RETURNING id
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT $5::uuid, CURRENT_TIMESTAMP, 'logout_everywhere', id, $4 FROM raised
)
SELECT id FROM raised UNION ALL SELECT user_id FROM auth_events WHERE id = $5::uuid
"""
# The token's row is locked first, then that of the successes, which others lock alone or first. It
# ends by what the first instance to see the token says, and is judged by what any may have said:
# two whose clocks differ would else take turns in beginning the count anew.
FIND_EXTERNAL = f"""
WITH matched AS (
    SELECT i.user_id, n FROM {_GIVEN} JOIN identities i USING (issuer, subject)
), linked AS (
    SELECT user_id AS id FROM matched ORDER BY n LIMIT 1
), found AS (
    SELECT coalesce((SELECT id FROM linked), (SELECT id FROM users WHERE email_key = $2)) AS id
), complete AS (
    SELECT (SELECT count(*) FROM matched) = json_array_length($1::json)
        OR (SELECT count(*) FROM identities JOIN found ON user_id = id) >= {MAX_IDENTITIES}
        AS has_all
), token AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    VALUES ($5, $6::int - 1, {after("$7")})
    {spend("$6", str(TOKEN_MAX_SECONDS), prolongs=False)} RETURNING remaining
), success AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT '{success_key("")}' || id, $8::int - 1, {after("$9")}
    FROM linked, token WHERE remaining >= 0
    {spend("$8", "$9", prolongs=False)} RETURNING remaining, expires_at
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client, provider)
    SELECT $4::uuid, CURRENT_TIMESTAMP, CASE WHEN remaining < 0 THEN 'login_throttled'
        ELSE 'login' END, id, $3, coalesce(provider, 'local')
    FROM linked JOIN users USING (id), complete, success
    WHERE remaining = -1 OR (remaining >= 0 AND has_all)
    ON CONFLICT (id) DO NOTHING
)
SELECT t.remaining < 0, CASE WHEN s.remaining < 0
        THEN extract(epoch FROM s.expires_at - CURRENT_TIMESTAMP)::float8 END,
    {_USER}, u.password, EXISTS (SELECT FROM linked), has_all,
    EXISTS (SELECT FROM identities i WHERE i.user_id = u.id), CURRENT_TIMESTAMP
FROM token t CROSS JOIN complete LEFT JOIN success s ON true
    LEFT JOIN users u ON u.id = (SELECT id FROM found)
"""
LINK = f"""
WITH target AS (
    UPDATE users u SET provider = $5,
        epoch = CASE WHEN $6::bool THEN {next_epoch("epoch")} ELSE epoch END,
        password = CASE WHEN $6::bool THEN NULL ELSE password END
    WHERE id = $2::uuid AND epoch = $3::int AND password IS NOT DISTINCT FROM $4
    RETURNING {_USER}
), identity AS ({_ADD_IDENTITIES}), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT $8::uuid, CURRENT_TIMESTAMP, 'identity_linked', id, $7 FROM target
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM target
"""


def _expired(table: str, key: str, condition: str) -> str:
    """Delete what nobody is using: rows that are locked are somebody's, and wait for no one."""
    # As an array they are selected once: a join could select anew, and more, for every row.
    return f"""DELETE FROM {table} WHERE {key} = ANY (ARRAY(
        SELECT {key} FROM {table} WHERE {condition} LIMIT {MAX_DELETED} FOR UPDATE SKIP LOCKED
    )) RETURNING 1"""


_OLD = "at <= CURRENT_TIMESTAMP - $1::float8 * interval '1 second'"
CLEAN_UP = f"""
WITH attempts AS (
    {_expired("auth_attempts", "key", "greatest(expires_at, known_until) <= CURRENT_TIMESTAMP")}
), sessions AS (
    {_expired("revoked_sessions", "sid", f"ends_at <= {_FORGOTTEN}")}
), events AS (
    {_expired("auth_events", "id", _OLD)}
)
SELECT greatest((SELECT count(*) FROM attempts), (SELECT count(*) FROM sessions),
    (SELECT count(*) FROM events))
"""
# The table is connect-pg-simple's, which also writes and compares `expire` in the connection's time
# zone. With u.id cast to text, instead of the text to UUID, the index could not be used.
EXPRESS_USER = f"""
SELECT {_USER} FROM session s JOIN users u ON u.id =
    CASE WHEN s.sess->>'userId' ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
    THEN (s.sess->>'userId')::uuid END
WHERE s.sid = $1 AND s.expire >= now() AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = $2)
"""
DELETE_EXPRESS = "DELETE FROM session WHERE sid = $1"
HEALTH = "SELECT now(), current_setting('server_version')"

NAMES = {
    sql: name.lower()
    for name, sql in globals().items()
    if isinstance(sql, str) and re.fullmatch("[A-Z][A-Z_]*", name)
}
"""What the log and the metrics call a statement."""
