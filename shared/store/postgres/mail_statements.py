"""The SQL of what is done for whoever reads a user's mailbox.

Whoever asks for a mail learns nothing: a row is written in every case, for nobody where there is
nobody, and what differs is seen by the deliverer alone. A row for nobody has no recipient.
"""

from __future__ import annotations

from shared.database.statement import Statement
from shared.model.throttling import HOME, success_key
from shared.store.postgres.attempt_sql import after, count_success, spend
from shared.store.postgres.outbox_sql import (
    DAY,
    HOUR,
    count_mail,
    digest,
    enqueue,
)
from shared.store.postgres.statements import (
    AS_FOUND,
    FORGET_FAILURE,
    HAS_NEW_HASH,
    IS_DONE,
    USER,
    end_replaced,
    is_verified,
    next_epoch,
    tell_of_network,
)

# Counted are the network, which is told when it has asked too often, and then the address, which
# is not: above its limits nothing is sent. A network from which the user has logged in lately has
# limits of its own, or a stranger could use up the owner's. Keys of addresses that nobody has are
# shared, so that they cannot fill the table. The digest is made whoever is asked for.
ASK = Statement(
    "ask_for_mail",
    f"""
WITH found AS (
    SELECT id, email, epoch, locale, disabled_at, email_verified_at FROM users
    WHERE email_key = :key
), client AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    VALUES (:client_key, :client_limit::int - 1, {after(":lockout_seconds")})
    {spend(":client_limit")} RETURNING remaining, expires_at
), home AS (
    SELECT CASE WHEN EXISTS (
        SELECT FROM auth_attempts WHERE key = :login_key AND known_until > CURRENT_TIMESTAMP
    ) THEN '{HOME}' ELSE '' END AS home
), hour AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT CASE WHEN EXISTS (SELECT FROM found) THEN :hour_key || home
            ELSE :nobodys_hour_key END,
        :hour_limit::int - (remaining >= 0)::int, {after(HOUR)} FROM client, home
    {spend(":hour_limit", HOUR, prolongs=False)} RETURNING remaining
), day AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT CASE WHEN EXISTS (SELECT FROM found) THEN :day_key || home ELSE :nobodys_day_key END,
        :day_limit::int - (c.remaining >= 0 AND h.remaining >= 0)::int, {after(DAY)}
    FROM client c, hour h, home
    {spend(":day_limit", DAY, prolongs=False)} RETURNING remaining
), wanted AS (
    SELECT f.* FROM found f, client c, hour h, day d
    WHERE c.remaining >= 0 AND h.remaining >= 0 AND d.remaining >= 0 AND disabled_at IS NULL
    AND (:kind <> 'verification' OR email_verified_at IS NULL)
), digest AS MATERIALIZED (
    SELECT {digest(":key::text")} AS email_digest
), mail AS (
    INSERT INTO mail_outbox (id, kind, recipient, user_id, epoch, email_digest, locale, asked_from)
    SELECT :mail_id::uuid, :kind, w.email, w.id, w.epoch,
        CASE WHEN w.id IS NOT NULL THEN email_digest END,
        coalesce(w.locale, :locale), :client
    FROM client CROSS JOIN digest LEFT JOIN wanted w ON true WHERE remaining >= 0
    ON CONFLICT (id) DO NOTHING
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, actor, client)
    SELECT :mail_id::uuid, CURRENT_TIMESTAMP,
        CASE WHEN remaining < 0 THEN 'mail_throttled' ELSE :kind || '_requested' END,
        f.id, CASE WHEN f.id IS NULL THEN :account END, :client
    FROM client LEFT JOIN found f ON true WHERE remaining > -2
    ON CONFLICT (id) DO NOTHING
)
SELECT remaining >= 0, extract(epoch FROM expires_at - CURRENT_TIMESTAMP)::float8 FROM client
""",
)
_IS_UNPROVED = "email_verified_at IS NULL AND unverified_since IS NOT NULL"
# A link works once: what it changes is what it was made for. A repeated call finds its own hash.
# An account whose address is not proved may be a stranger's, who could end each link in time by
# what raises the epoch: there only the address counts, which the link proves.
RESET_PASSWORD = Statement(
    "reset_password",
    f"""
WITH reset AS (
    UPDATE users u SET password = :new_hash,
        epoch = CASE WHEN password = :new_hash THEN epoch ELSE {next_epoch("epoch")} END,
        email_verified_at = coalesce(email_verified_at, CURRENT_TIMESTAMP)
    WHERE id = :user_id::uuid AND disabled_at IS NULL AND {digest("email_key")} = :email_digest
    AND (epoch = :epoch::int OR password = :new_hash OR ({_IS_UNPROVED}))
    RETURNING {USER}, {HAS_NEW_HASH}, u.email_key, u.locale
), login AS (
    UPDATE auth_attempts SET remaining = :login_limit::int
    WHERE key = :login_key AND EXISTS (SELECT FROM reset) RETURNING 1
), account AS (
    UPDATE auth_attempts SET remaining = :account_limit::int
    WHERE key = :account_key AND (SELECT count(*) FROM login) >= 0 AND EXISTS (SELECT FROM reset)
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT :mail_id::uuid, CURRENT_TIMESTAMP, 'password_reset', id, :client FROM reset
    ON CONFLICT (id) DO NOTHING
), {count_mail("EXISTS (SELECT FROM reset)")}, mail AS (
    {enqueue("'password_changed'", "reset u, mail_left")}
)
SELECT * FROM reset
""",
)


_AS_TOKEN = f"""u.id = :user_id::uuid AND u.epoch = :epoch::int
    AND {digest("u.email_key")} = :email_digest AND u.disabled_at IS NULL"""
_GOES_ON = "NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :sid)"
_AGAIN = "EXISTS (SELECT FROM auth_events WHERE id = :event::uuid AND user_id = :user_id::uuid)"
# Who has proved the address has no use for the link; but for a repeated call.
VERIFY_EMAIL = Statement(
    "verify_email",
    f"""
WITH verified AS (
    UPDATE users u SET email_verified_at = coalesce(email_verified_at, CURRENT_TIMESTAMP)
    WHERE {_AS_TOKEN} AND {_GOES_ON} AND (email_verified_at IS NULL OR {_AGAIN})
    RETURNING {USER}
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT :event::uuid, CURRENT_TIMESTAMP, 'email_verified', id, :client FROM verified
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM verified
""",
)
# The link goes to the new address; where somebody has that already, its owner is told instead.
REQUEST_EMAIL_CHANGE = Statement(
    "request_email_change",
    count_success(
        "email_change_requested",
        "reauthentication",
        """SELECT id FROM users WHERE id = :user_id::uuid AND epoch = :epoch::int
        AND password IS NOT DISTINCT FROM :old_hash AND disabled_at IS NULL
        AND EXISTS (SELECT FROM allowed)""",
        f"""{FORGET_FAILURE}, {count_mail("EXISTS (SELECT FROM done)")}, owner AS (
        SELECT * FROM users WHERE email_key = :email::text
    ), mail AS (
        INSERT INTO mail_outbox
            (id, kind, recipient, user_id, epoch, email_digest, locale, asked_from)
        SELECT :mail_id::uuid, CASE WHEN o.id IS NULL THEN 'email_change' ELSE 'address_taken' END,
            coalesce(o.email, :email::text), coalesce(o.id, u.id), coalesce(o.epoch, u.epoch),
            {digest("u.email_key")}, coalesce(o.locale, u.locale), :client
        FROM mail_left, done d JOIN users u USING (id) LEFT JOIN owner o ON true
        WHERE o.disabled_at IS NULL
        ON CONFLICT (id) DO NOTHING
    )""",
    ),
)
# The epoch rises with a new address, or an address that is changed back would revive what was sent
# before. What a call has done whose answer was lost is found by its event.
CHANGE_EMAIL = Statement(
    "change_email",
    f"""
WITH done AS (
    UPDATE users u SET email = :email::text, email_key = :email::text,
        email_verified_at = CURRENT_TIMESTAMP, epoch = {next_epoch("u.epoch")}
    WHERE {_AS_TOKEN} AND {_GOES_ON} RETURNING {USER}
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client)
    SELECT :event::uuid, CURRENT_TIMESTAMP, 'email_changed', id, :client FROM done
    ON CONFLICT (id) DO NOTHING
), mail AS (
    {enqueue("'email_changed'", "users u", where=IS_DONE)}
)
SELECT * FROM done
UNION ALL SELECT {USER} FROM users u WHERE id = :user_id::uuid AND {_AGAIN}
""",
)
# By who has no session here, but the password.
VERIFY_BY_PASSWORD = Statement(
    "verify_by_password",
    count_success(
        "email_verified",
        "reauthentication",
        f"""UPDATE users u SET email_verified_at = CURRENT_TIMESTAMP
        WHERE {AS_FOUND} AND {digest("email_key")} = :email_digest
        AND (email_verified_at IS NULL OR EXISTS (SELECT FROM again))
        AND EXISTS (SELECT FROM allowed) RETURNING {USER}""",
        FORGET_FAILURE,
    ),
)
CHANGE_EMAIL_BY_PASSWORD = Statement(
    "change_email_by_password",
    count_success(
        "email_changed",
        "reauthentication",
        f"""UPDATE users u SET email = :email::text, email_key = :email::text,
            email_verified_at = CURRENT_TIMESTAMP, epoch = {next_epoch(":epoch::int")}
        WHERE id = :user_id::uuid AND password IS NOT DISTINCT FROM :old_hash
        AND disabled_at IS NULL AND EXISTS (SELECT FROM allowed)
        AND ((epoch = :epoch::int AND {digest("email_key")} = :email_digest)
            OR (epoch = {next_epoch(":epoch::int")} AND email_key = :email::text
                AND EXISTS (SELECT FROM again)))
        RETURNING {USER}""",
        f"""{FORGET_FAILURE}, mail AS (
        {enqueue("'email_changed'", "users u", where=IS_DONE)}
    )""",
    ),
)
_LINKS_USER = f"""u.id = :user_id::uuid AND {digest("u.email_key")} = :email_digest
    AND u.disabled_at IS NULL AND (u.epoch = :epoch::int OR ({_IS_UNPROVED}))"""
# The link is used up by its own id among the sessions that have ended. Whoever signed up with an
# address that was not theirs to prove loses what they have set: name, password and sessions.
LOGIN_BY_MAIL = Statement(
    "login_by_mail",
    f"""
WITH found AS (
    SELECT u.id, {is_verified("u.")} FROM users u WHERE {_LINKS_USER}
    AND NOT EXISTS (SELECT FROM revoked_sessions WHERE sid = :used_sid)
), counted AS (
    INSERT INTO auth_attempts AS a (key, remaining, expires_at)
    SELECT '{success_key("")}' || id, :success_limit::int - 1, {after(":lockout_seconds")}
    FROM found
    {spend(":success_limit", prolongs=False)} RETURNING remaining, expires_at
), used AS (
    INSERT INTO revoked_sessions (sid, ends_at, user_id)
    SELECT :used_sid, :ends_at::timestamptz, id FROM found, counted WHERE remaining >= 0
    ON CONFLICT (sid) DO NOTHING RETURNING user_id
), done AS (
    UPDATE users u SET email_verified_at = coalesce(email_verified_at, CURRENT_TIMESTAMP),
        password = CASE WHEN f.email_verified IS false THEN NULL ELSE u.password END,
        name = CASE WHEN f.email_verified IS false THEN NULL ELSE u.name END,
        epoch = CASE WHEN f.email_verified IS false THEN {next_epoch("u.epoch")} ELSE u.epoch END
    FROM found f, used WHERE u.id = f.id AND {_LINKS_USER} RETURNING {USER}
), event AS (
    INSERT INTO auth_events (id, at, kind, user_id, client, provider)
    SELECT :event::uuid, CURRENT_TIMESTAMP,
        CASE WHEN remaining < 0 THEN 'login_throttled' ELSE 'login' END, f.id, :client, 'local'
    FROM found f, counted WHERE remaining = -1 OR EXISTS (SELECT FROM done)
    ON CONFLICT (id) DO NOTHING
){end_replaced("EXISTS (SELECT FROM done)")}{tell_of_network("SELECT id FROM done")}
SELECT c.remaining < 0, extract(epoch FROM c.expires_at - CURRENT_TIMESTAMP)::float8, d.*
FROM (VALUES (1)) one LEFT JOIN counted c ON true LEFT JOIN (
    SELECT * FROM done
    UNION ALL SELECT {USER} FROM users u WHERE id = :user_id::uuid AND {_AGAIN}
) d ON true
""",
)
