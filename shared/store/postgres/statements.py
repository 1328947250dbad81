"""What the Postgres store says: the SQL of requests, but for counts of attempts.

What is deleted, opened or ended by time is so by the database's clock, never by an instance's:
one instance whose clock is wrong would do it for all. What happens is written down by that clock.

Each statement may be repeated. `u` is a user, `g` a given identity.
"""

from __future__ import annotations

from shared.database.statement import Statement
from shared.model.mails import MAX_AGE, NOTICE_SECONDS
from shared.model.throttling import notice_key, success_key
from shared.model.users import (
    BROUGHT_ISSUERS,
    MAX_EPOCH,
    MAX_IDENTITIES,
    TOKEN_MAX_SECONDS,
    USER_COLUMNS,
)
from shared.store.postgres.attempt_sql import (
    after,
    count_attempt,
    count_success,
    give_back,
    spend,
)
from shared.store.postgres.outbox_sql import count_mail, enqueue, is_known_or_proved

MAX_EVENTS = 100
"""Of the audit, in what users are told of their accounts."""
MAX_DELETED = 1000
"""Expired rows of each table that are deleted at once."""
KEPT_HOURS = 24
"""For which a revocation outlives its session, whose cookie an instance with a slow clock takes."""


def next_epoch(epoch: str) -> str:
    """Give the twin of `shared.model.users.next_epoch`."""
    return f"(CASE WHEN {epoch} < {MAX_EPOCH} THEN {epoch} + 1 ELSE {MAX_EPOCH // 2} END)"


def is_verified(user: str) -> str:
    """Write whether an address is proved: NULL for who is from before that was asked."""
    return (
        f"CASE WHEN {user}email_verified_at IS NOT NULL THEN true"
        f" WHEN {user}unverified_since IS NOT NULL THEN false END AS email_verified"
    )


USER = ", ".join([*(f"u.{column}" for column in USER_COLUMNS), is_verified("u.")])
"""What `rows.read_user` reads."""

# A column that pads, char(n), gives its text without the blanks.
STORED_HASH = "CASE WHEN u.disabled_at IS NULL THEN u.password::text END AS password"
_FORGOTTEN = f"CURRENT_TIMESTAMP - interval '{KEPT_HOURS} hours'"


def _iso(moment: str) -> str:
    """Write a time as `shared.formats.timestamps.to_iso` does, whatever the session's settings are.

    NULL for one that is infinite, before the year 1 or after 9999.
    """
    utc = f"{moment} AT TIME ZONE 'UTC'"
    return (
        f"CASE WHEN extract(year FROM {utc}) BETWEEN 1 AND 9999"
        f""" THEN to_char({utc}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') END"""
    )


def _unless(condition: str) -> str:
    """Write a column that undoes the statement where a trigger has put something else into a row.

    A password that is not the new one, or sessions that go on, must not be told as done.
    """
    return f"CASE WHEN {condition} THEN current_setting('{ANOTHER_VALUE}') END"


def end_replaced(condition: str) -> str:
    """Write what ends the browser's previous session, where the new one begins (ASVS V7.2.4)."""
    return f""", replaced AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT :replaced_sid::text, :replaced_until::timestamptz, :replaced_user_id::uuid
    WHERE :replaced_until::timestamptz > {_FORGOTTEN} AND {condition}
    ON CONFLICT (sid) DO NOTHING RETURNING user_id
), replaced_event AS (
    INSERT INTO auth_events (at, kind, user_id, client)
    SELECT CURRENT_TIMESTAMP, 'logout', user_id, :client FROM replaced
)"""


RESERVE_SIGN_UP = Statement(
    "reserve_sign_up",
    f"""
WITH reserved AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    VALUES (:key, :limit::int - 1, {after(":lockout_seconds")})
    {spend(":limit")} RETURNING remaining, expires_at
), event AS (
    INSERT INTO auth_events (at, kind, client)
    SELECT CURRENT_TIMESTAMP, 'signup_throttled', :client FROM reserved WHERE remaining = -1
)
SELECT remaining >= 0, extract(epoch FROM expires_at - CURRENT_TIMESTAMP)::float8 FROM reserved
""",
)
# The planner takes them for a hundred: as a join with them it might read all identities. OFFSET and
# LIMIT keep it from that, and it looks each of them up.
_GIVEN = """(
    SELECT e->>0 AS issuer, e->>1 AS subject, n
    FROM json_array_elements(:identities::json) WITH ORDINALITY AS given (e, n)
) g"""
_HOLDER = """LATERAL (
    SELECT user_id FROM identities WHERE (issuer, subject) = (g.issuer, g.subject) LIMIT 1
)"""
KEPT_OUT = "ai_coder.no_row_in_identities"
ANOTHER_VALUE = "ai_coder.another_value_in_users"
STAYED = "ai_coder.row_stays_in_users"
"""No setting has these names: to ask for one is an error, which undoes a statement."""
# An identity that is somebody else's by now violates the key, and nothing at all is done; neither
# where a trigger keeps one out.
_ADD_IDENTITIES = f"""lacking AS (
    SELECT issuer, subject, t.id FROM target t CROSS JOIN {_GIVEN}
    WHERE NOT EXISTS (
        SELECT FROM identities i
        WHERE (i.issuer, i.subject, i.user_id) = (g.issuer, g.subject, t.id) OFFSET 0
    )
), identity AS (
    INSERT INTO identities (issuer, subject, user_id) SELECT * FROM lacking RETURNING 1
)"""
_HAS_ALL = f"""CASE WHEN (SELECT count(*) FROM identity) < (SELECT count(*) FROM lacking)
    THEN current_setting('{KEPT_OUT}') END"""
_AS_SIGNED_UP = _unless(
    "u.email_key IS DISTINCT FROM :email::text"
    " OR (:password_hash IS NOT NULL AND u.password IS DISTINCT FROM :password_hash)"
)
# The update that changes nothing is for a repeated call whose first answer was lost: it waits for
# the first, and gives the row if it is the caller's own. Another's row is not given, but told of;
# where it came during the statement, or where no row is there at all, IS_TAKEN has to be asked.
CREATE = Statement(
    "create",
    f"""
WITH target AS (
    INSERT INTO users AS u (id, email, email_key, password, name, provider,
        email_verified_at, unverified_since, locale)
    VALUES (:user_id::uuid, :email::text, :email::text, :password_hash, :name, :provider,
        CASE WHEN :is_proved::bool THEN CURRENT_TIMESTAMP END,
        CASE WHEN :is_unproved::bool THEN CURRENT_TIMESTAMP END, :locale)
    ON CONFLICT (email_key) DO UPDATE SET email_key = u.email_key WHERE u.id = excluded.id
    RETURNING {USER}, {_AS_SIGNED_UP}, u.email_key, u.locale
), taken AS (
    SELECT * FROM users u WHERE :tells_owner::bool AND email_key = :email::text
    AND id <> :user_id::uuid AND disabled_at IS NULL AND NOT EXISTS (SELECT FROM target)
), {count_mail(":is_asked::bool")}, mail AS (
    {enqueue("'verification'", "mail_left, target u", where=":is_asked::bool")}
), mail_to_owner AS (
    {enqueue("'address_taken'", "mail_left, taken u")}
), {_ADD_IDENTITIES}, event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT id, CURRENT_TIMESTAMP, 'signup', id, :client FROM target ON CONFLICT (id) DO NOTHING
){end_replaced("EXISTS (SELECT FROM target)")}
SELECT CASE WHEN t.id IS NULL THEN EXISTS (
    SELECT FROM users WHERE email_key = :email::text AND id <> :user_id::uuid) END, {_HAS_ALL}, t.*
FROM (VALUES (1)) one LEFT JOIN target t ON true
""",
)
# Which constraint was violated says nothing by its name, and a row that is not there nothing at
# all: whose address, id or identity it is can be seen. Rows of the old server may have no key.
IS_TAKEN = Statement(
    "is_taken",
    f"""
SELECT 1 FROM users WHERE email_key = :key::text AND id <> :user_id::uuid
UNION ALL SELECT 1 FROM users WHERE email = :key::text AND id <> :user_id::uuid
UNION ALL SELECT 1 FROM users WHERE id = :user_id::uuid AND email_key <> :key::text
UNION ALL SELECT 1 FROM {_GIVEN} CROSS JOIN {_HOLDER} i WHERE i.user_id <> :user_id::uuid
LIMIT 1
""",
)
# PostgreSQL tells of a text that is too long neither its column nor its table.
WIDTHS = Statement(
    "widths",
    """
SELECT attname, CASE typtype WHEN 'd' THEN typtypmod ELSE atttypmod END - 4 AS width
FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
WHERE attrelid = 'users'::regclass AND typcategory = 'S'
""",
)
_SIGN_INS = "('login', 'signup', 'identity_linked')"
"""Of the audit, by whom a network is the user's."""
_IS_TOLD = "EXISTS (SELECT FROM news)"
BEGIN_LOGIN = Statement(
    "begin_login",
    count_attempt(f"SELECT {USER}, {STORED_HASH} FROM users u WHERE email_key = :key", "login"),
)
BEGIN_REAUTHENTICATION = Statement(
    "begin_reauthentication",
    count_attempt(
        f"""SELECT {USER}, {STORED_HASH} FROM users u
        WHERE id = :user_id::uuid AND epoch = :epoch::int AND disabled_at IS NULL
        AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)""",
        "reauthentication",
    ),
)


def tell_of_network(who: str, unless: str = "false") -> str:
    """Write what tells users by mail, once a week, of a sign-in from a network that is new.

    `who` selects the `id` of who has signed in, and whoever has no other network is not told.
    """
    seen_there = f"""FROM auth_events k WHERE k.user_id = w.id AND k.kind IN {_SIGN_INS}"""
    return f""", news AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT '{notice_key("")}' || w.id, 0, {after(str(NOTICE_SECONDS))}
    FROM ({who}) w WHERE NOT {unless}
    AND NOT EXISTS (SELECT {seen_there} AND k.client = :client)
    AND EXISTS (SELECT {seen_there} AND k.client IS NOT NULL)
    ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at
        WHERE a.expires_at <= CURRENT_TIMESTAMP
    RETURNING 1
), notice AS (
    {
        enqueue(
            "'new_sign_in'",
            f"news, ({who}) w JOIN users u USING (id)",
            where=is_known_or_proved(),
        )
    }
)"""


def _end_login(*, tells: bool) -> Statement:
    more = end_replaced("EXISTS (SELECT FROM allowed)")
    if tells:
        # A network from which the user has logged in lately costs one look at its own count.
        more += tell_of_network(
            """SELECT user_id AS id FROM auth_events
            WHERE id = :event::uuid AND EXISTS (SELECT FROM allowed)""",
            """EXISTS (SELECT FROM auth_attempts
            WHERE key = :login_key AND known_until > CURRENT_TIMESTAMP)""",
        )
    return Statement(
        "end_login",
        count_success(
            "login", "login", "SELECT 1 FROM allowed", more, gives=_IS_TOLD if tells else "false"
        ),
    )


END_LOGIN, END_LOGIN_TELLING = _end_login(tells=False), _end_login(tells=True)
"""Where no mail is sent, nothing is asked of networks."""
# Where the user is not as they were found, the password was right all the same.
FORGET_FAILURE = """, forgiven AS (
    DELETE FROM auth_events WHERE id = :event::uuid AND kind = 'reauthentication_failed'
    AND EXISTS (SELECT FROM allowed) AND NOT EXISTS (SELECT FROM done)
)"""
AS_CHANGED = _unless(
    f"u.password IS DISTINCT FROM :new_hash OR u.epoch <> {next_epoch(':epoch::int')}"
)
HAS_NEW_HASH = _unless("u.password IS DISTINCT FROM :new_hash")
IS_DONE = f"u.id IN (SELECT id FROM done) AND {is_known_or_proved()}"
AS_FOUND = (
    "id = :user_id::uuid AND epoch = :epoch::int AND password IS NOT DISTINCT FROM :old_hash"
    " AND disabled_at IS NULL"
)
# Of a row that a trigger keeps as it was, nothing else that the trigger does is to stay either.
_UNDO = f"""WHEN NOT EXISTS (SELECT FROM done) AND EXISTS (SELECT FROM allowed)
    AND EXISTS (SELECT FROM users WHERE {AS_FOUND}) THEN current_setting('{STAYED}')::boolean"""
IS_AS_FOUND = Statement("is_as_found", f"SELECT 1 FROM users WHERE {AS_FOUND}", is_prepared=False)
# A repeated call whose first answer was lost finds its own hash, which nobody else can have made.
CHANGE_PASSWORD = Statement(
    "change_password",
    count_success(
        "password_changed",
        "reauthentication",
        f"""UPDATE users u SET password = :new_hash, epoch = {next_epoch(":epoch::int")}
        WHERE id = :user_id::uuid AND disabled_at IS NULL AND EXISTS (SELECT FROM allowed)
        AND ((epoch = :epoch::int AND password IS NOT DISTINCT FROM :old_hash)
            OR (epoch = {next_epoch(":epoch::int")} AND password = :new_hash))
        RETURNING {USER}, {AS_CHANGED}""",
        f"""{FORGET_FAILURE}, {count_mail("EXISTS (SELECT FROM done)")}, mail AS (
        {enqueue("'password_changed'", "users u, mail_left", where=IS_DONE)}
    )""",
        undo=_UNDO,
    ),
)
# An import remembers the hash that it replaced, and whom it brought, so that it brings them once.
DELETE_USER = Statement(
    "delete_user",
    count_success(
        "account_deleted",
        "reauthentication",
        f"DELETE FROM users WHERE {AS_FOUND} AND EXISTS (SELECT FROM allowed) RETURNING id",
        f"""{FORGET_FAILURE}, forgotten AS (
        UPDATE import_records SET previous = NULL
        WHERE user_id = :user_id::uuid AND EXISTS (SELECT FROM done)
    ), unsent AS (
        DELETE FROM mail_outbox WHERE user_id = :user_id::uuid AND EXISTS (SELECT FROM done)
    ), mail AS (
        {enqueue("'account_deleted'", "users u", where=IS_DONE)}
    )""",
        """UNION ALL SELECT user_id FROM auth_events
        WHERE id = :event::uuid AND kind = 'account_deleted'""",
        undo=_UNDO,
    ),
)
GIVE_BACK = Statement("give_back", give_back(audited=True))
GIVE_BACK_UNAUDITED = Statement("give_back_unaudited", give_back(audited=False))
SELECT_USER = Statement(
    "select_user",
    f"""
SELECT {USER} FROM users u WHERE id = :user_id::uuid AND disabled_at IS NULL
AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)
""",
)
IS_REVOKED_OR_RECONCILED = Statement(
    "is_revoked_or_reconciled",
    """
SELECT 1 FROM revoked_sessions WHERE sid = :sid
UNION ALL SELECT 1 FROM applied_ops WHERE operation = :operation::uuid
""",
)
ACCOUNT = Statement(
    "account",
    f"""
SELECT {USER}, {_iso("created_at")}, {_iso("updated_at")}, password IS NOT NULL,
    (SELECT json_agg(json_build_array(issuer, subject) ORDER BY i.created_at, issuer)::text
        FROM identities i WHERE user_id = u.id),
    (SELECT json_agg(json_build_object(
            'at', {_iso("at")}, 'kind', kind, 'client', client))::text
        FROM (SELECT * FROM auth_events WHERE user_id = u.id ORDER BY at DESC, id DESC
            LIMIT {MAX_EVENTS}) e),
    claims
FROM users u WHERE id = :user_id::uuid AND disabled_at IS NULL
AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)
""",
)
REPLACE_HASH = Statement(
    "replace_hash",
    """
UPDATE users SET password = :new_hash WHERE id = :user_id::uuid AND password = :old_hash
RETURNING id
""",
)
# Without a row it has to be asked again: another call may just have inserted it.
REVOKE_SESSION = Statement(
    "revoke_session",
    f"""
WITH revoked AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT :sid, :ends_at::timestamptz, :user_id::uuid WHERE :ends_at::timestamptz > {_FORGOTTEN}
    ON CONFLICT (sid) DO NOTHING RETURNING sid
), event AS (
    INSERT INTO auth_events (at, kind, user_id, client)
    SELECT CURRENT_TIMESTAMP, 'logout', :user_id::uuid, :client FROM revoked
)
SELECT 1 WHERE EXISTS (SELECT FROM revoked) OR :ends_at::timestamptz <= {_FORGOTTEN}
    OR EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)
""",
)
REVOKE_ALL = Statement(
    "revoke_all",
    f"""
WITH raised AS (
    UPDATE users SET epoch = {next_epoch("epoch")} WHERE id = :user_id::uuid AND epoch = :epoch::int
    AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)
    RETURNING id, {_unless("epoch = :epoch::int")}
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT :event::uuid, CURRENT_TIMESTAMP, 'logout_everywhere', id, :client FROM raised
)
SELECT id FROM raised UNION ALL SELECT user_id FROM auth_events WHERE id = :event::uuid
""",
)


_IS_NOT_BROUGHT = " AND ".join(f"NOT starts_with(i.issuer, '{it}')" for it in BROUGHT_ISSUERS)
# The token's row is locked first, then that of the successes, which others lock alone or first. It
# ends by what the first instance to see the token says, and is judged by what any may have said:
# two whose clocks differ would else take turns in beginning the count anew.


def _find_external(*, tells: bool) -> Statement:
    more = end_replaced("EXISTS (SELECT FROM event, success WHERE remaining >= 0)")
    if tells:
        more += tell_of_network(
            """SELECT id FROM linked
            WHERE EXISTS (SELECT FROM event, success WHERE remaining >= 0)"""
        )
    return Statement(
        "find_external",
        f"""
WITH matched AS (
    SELECT i.user_id, n FROM {_GIVEN} CROSS JOIN {_HOLDER} i
), linked AS (
    SELECT user_id AS id FROM matched ORDER BY n LIMIT 1
), found AS (
    SELECT coalesce((SELECT id FROM linked), (SELECT id FROM users WHERE email_key = :key)) AS id
), complete AS (
    SELECT (SELECT count(*) FROM matched) = json_array_length(:identities::json)
        OR (SELECT count(*) FROM identities JOIN found ON user_id = id) >= {MAX_IDENTITIES}
        AS has_all
), token AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    VALUES (:token_key, :token_limit::int - 1, {after(":token_seconds")})
    {spend(":token_limit", str(TOKEN_MAX_SECONDS), prolongs=False)} RETURNING remaining
), success AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT '{success_key("")}' || id, :success_limit::int - 1, {after(":lockout_seconds")}
    FROM linked, token WHERE remaining >= 0
    {spend(":success_limit", prolongs=False)} RETURNING remaining, expires_at
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client, provider)
    SELECT :event::uuid, CURRENT_TIMESTAMP, CASE WHEN remaining < 0 THEN 'login_throttled'
        ELSE 'login' END, id, :client, coalesce(provider, 'local')
    FROM linked JOIN users USING (id), complete, success
    WHERE disabled_at IS NULL AND (remaining = -1 OR (remaining >= 0 AND has_all))
    ON CONFLICT (id) DO NOTHING RETURNING id
){more}
SELECT t.remaining < 0, u.disabled_at IS NOT NULL, CASE WHEN s.remaining < 0
        THEN extract(epoch FROM s.expires_at - CURRENT_TIMESTAMP)::float8 END,
    {USER}, {STORED_HASH}, EXISTS (SELECT FROM linked), has_all,
    EXISTS (SELECT FROM identities i WHERE i.user_id = u.id
        AND {_IS_NOT_BROUGHT}), CURRENT_TIMESTAMP,
    {_IS_TOLD if tells else "false"}
FROM token t CROSS JOIN complete LEFT JOIN success s ON true
    LEFT JOIN users u ON u.id = (SELECT id FROM found)
""",
    )


FIND_EXTERNAL, FIND_EXTERNAL_TELLING = _find_external(tells=False), _find_external(tells=True)


def _link(*, tells: bool) -> Statement:
    more = end_replaced("EXISTS (SELECT FROM target)")
    if tells:
        more += tell_of_network("SELECT id FROM target")
    return Statement(
        "link",
        f"""
WITH target AS (
    UPDATE users u SET provider = :provider,
        epoch = CASE WHEN :drops_password::bool THEN {next_epoch("epoch")} ELSE epoch END,
        password = CASE WHEN :drops_password::bool THEN NULL ELSE password END,
        email_verified_at = CASE WHEN :proves_address::bool
            THEN coalesce(email_verified_at, CURRENT_TIMESTAMP) ELSE email_verified_at END
    WHERE id = :user_id::uuid AND epoch = :epoch::int AND password IS NOT DISTINCT FROM :old_hash
    AND disabled_at IS NULL
    RETURNING {USER},
        {_unless(":drops_password::bool AND (u.password IS NOT NULL OR u.epoch = :epoch::int)")}
), {_ADD_IDENTITIES}, event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT :event::uuid, CURRENT_TIMESTAMP, 'identity_linked', id, :client FROM target
    ON CONFLICT (id) DO NOTHING
){more}
SELECT {_HAS_ALL}, t.* FROM target t
""",
    )


LINK, LINK_TELLING = _link(tells=False), _link(tells=True)


def _expired(table: str, key: str, condition: str) -> str:
    """Delete what nobody is using: rows that are locked are somebody's, and wait for no one."""
    # As an array they are selected once: a join could select anew, and more, for every row.
    return f"""DELETE FROM {table} WHERE {key} = ANY (ARRAY(
        SELECT {key} FROM {table} WHERE {condition} LIMIT {MAX_DELETED} FOR UPDATE SKIP LOCKED
    )) RETURNING 1"""


_ABANDONED = f"due_at <= CURRENT_TIMESTAMP - interval '{2 * MAX_AGE} seconds'"
"""Mails that nobody delivers any more, such as where mail was switched off."""
_OLD = "at <= CURRENT_TIMESTAMP - :audit_seconds::float8 * interval '1 second'"
CLEAN_UP = Statement(
    "clean_up",
    f"""
WITH attempts AS (
    {_expired("auth_attempts", "key", "greatest(expires_at, known_until) <= CURRENT_TIMESTAMP")}
), sessions AS (
    {_expired("revoked_sessions", "sid", f"ends_at <= {_FORGOTTEN}")}
), events AS (
    {_expired("auth_events", "id", _OLD)}
), mails AS (
    {_expired("mail_outbox", "id", _ABANDONED)}
)
SELECT greatest((SELECT count(*) FROM attempts), (SELECT count(*) FROM sessions),
    (SELECT count(*) FROM events), (SELECT count(*) FROM mails))
""",
    is_prepared=False,
)
# The table is connect-pg-simple's, which also writes and compares `expire` in the connection's time
# zone. It may be missing, and a browser asks for it once. With u.id cast to text, instead of the
# text to UUID, the index could not be used.
EXPRESS_USER = Statement(
    "express_user",
    f"""
SELECT {USER} FROM session s JOIN users u ON u.id =
    CASE WHEN s.sess->>'userId' ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$'
    THEN (s.sess->>'userId')::uuid END
WHERE s.sid = :express_sid AND s.expire >= now() AND u.disabled_at IS NULL
AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)
""",
    is_prepared=False,
)
DELETE_EXPRESS = Statement(
    "delete_express",
    "DELETE FROM session WHERE sid = :express_sid RETURNING 1",
    is_prepared=False,
)
HAS_EXPRESS = Statement(
    "has_express", "SELECT 1 FROM session WHERE sid = :express_sid", is_prepared=False
)
# It names what requests read and reads nothing: without the rights to them nobody is connected.
HEALTH = Statement(
    "health",
    """
SELECT now(), current_setting('server_version') WHERE NOT EXISTS (
    SELECT FROM users, identities, revoked_sessions, auth_attempts, auth_events, mail_outbox
    WHERE false
)
""",
)
