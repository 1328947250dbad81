"""A database as it is after years of use: users of every kind, and what they leave behind.

Everything is in the order in which it would have come; ids and keys are random, as they are in use,
and the same in every run. The indexes are those of the migrations, dropped and made again.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from bench.imports import psql
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.model.users import User
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.postgres import USER, Server

EVENTS_A_USER = 5
AUDIT_DAYS = 90
"""Over which they are spread, less half a day, so that none has to go yet."""
ATTEMPTS_A_USER = 0.75
"""Networks from which an account was used in the last 30 days: of every second one, 1.5."""
ENDED_SESSIONS_A_USER = 0.3
TABLES = ("users", "identities", "auth_attempts", "revoked_sessions", "auth_events")
GOOGLE = "https://accounts.google.com"

_FILL = """
SET timezone = 'UTC';
INSERT INTO users (id, email, email_key, password, name, provider, created_at, updated_at,
    email_verified_at, unverified_since)
SELECT md5('user' || n)::uuid, address, address,
    CASE WHEN n % 4 < 3 THEN '$2b$10$' || left(md5('salt' || n) || md5('hash' || n), 53) END,
    (ARRAY['Ada Lovelace', 'Zoë Müller', '山田 健二', 'Łukasz Żak', NULL])[1 + n % 5],
    CASE WHEN n % 4 < 3 THEN 'local' WHEN n % 8 = 3 THEN 'google' ELSE 'firebase-google' END,
    made, made,
    CASE WHEN n % 10 < 6 THEN made END, CASE WHEN n % 10 = 6 THEN made END
FROM generate_series(1, {users}) n,
    concat(left(md5('user' || n), 6), '.', n, '@example.com') address,
    date_trunc('milliseconds', now() - (1 - n / {users}.0) * interval '730 days') made;

INSERT INTO identities (issuer, subject, user_id, created_at)
SELECT '{google}', 100000000000000000000 + n, id, created_at
FROM generate_series(1, {users}) n JOIN users ON id = md5('user' || n)::uuid
WHERE provider <> 'local';
INSERT INTO identities (issuer, subject, user_id, created_at)
SELECT 'https://securetoken.google.com/example', left(md5('firebase' || id), 28), id, created_at
FROM users WHERE provider = 'firebase-google';

INSERT INTO auth_attempts (key, remaining, expires_at, known_until)
SELECT concat('login ', {pseudonym_account}, ' ', {pseudonym_network}), 5,
    known - interval '30 days' + interval '15 minutes', known
FROM generate_series(1, {attempts}) n,
    date_trunc('milliseconds',
        now() + interval '1 day' + n / {attempts}.0 * interval '29 days') known;

INSERT INTO revoked_sessions (sid, ends_at, user_id)
SELECT {pseudonym_session}, now() + n / {sessions}.0 * interval '30 days',
    md5('user' || (1 + n::bigint * 7919 % {users}))::uuid
FROM generate_series(1, {sessions}) n;

INSERT INTO auth_events (at, kind, user_id, actor, client, provider)
SELECT date_trunc('milliseconds',
        now() - (1 - n / {events}.0) * interval '{audit_days} days'),
    kind, CASE WHEN n % 16 <> 3 THEN md5('user' || (1 + n::bigint * 7919 % {users}))::uuid END,
    CASE WHEN n % 16 = 3 THEN {pseudonym_account} END,
    concat_ws('.', n * 31 % 223, n * 17 % 256, n % 256, '0/24'),
    CASE WHEN kind LIKE 'login%' THEN (ARRAY['local', 'local', 'google'])[1 + n % 3] END
FROM generate_series(1, {events}) n, concat((ARRAY['login', 'login', 'login', 'login_failed',
    'login', 'logout', 'login', 'password_reset_requested'])[1 + n % 8]) kind
"""

# Others refer to the primary key of users, and the table is filled beside its keys.
_INDEXES = f"""
SELECT CASE WHEN conname IS NULL THEN format('DROP INDEX %s', indexrelid::regclass)
        ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', indrelid::regclass, conname) END,
    CASE WHEN conname IS NULL THEN pg_get_indexdef(indexrelid)
        ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', indrelid::regclass, conname,
            pg_get_constraintdef(k.oid)) END
FROM pg_index i LEFT JOIN pg_constraint k ON conindid = indexrelid AND contype IN ('p', 'u')
WHERE indrelid::regclass::text IN {TABLES}
AND (conname IS NULL OR indrelid <> 'users'::regclass)
"""  # noqa: S608  # constants


def _pseudonym(kind: str) -> str:
    """Write 22 characters, as keys have them."""
    encoded = f"encode(decode(md5('{kind}' || n), 'hex'), 'base64')"
    return f"translate(left({encoded}, 22), '+/', '-_')"


class Somebody(NamedTuple):
    """One of the users, by number."""

    number: int

    @property
    def id(self) -> str:
        """Give their id."""
        digest = self._digest
        return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:]))

    @property
    def email(self) -> str:
        """Give their address, which is its own key."""
        return f"{self._digest[:6]}.{self.number}@example.com"

    @property
    def user(self) -> User:
        """Give them as the store does, if they have a password."""
        return User(self.id, self.email, None, "local")

    @property
    def subject(self) -> str:
        """Give what Google calls them, if they came from there."""
        return str(100_000_000_000_000_000_000 + self.number)

    @property
    def _digest(self) -> str:
        return hashlib.md5(f"user{self.number}".encode(), usedforsecurity=False).hexdigest()


def populate(server: Server, database: str, users: int) -> None:
    """Make the database, and fill it."""
    server.run(f"CREATE DATABASE {database} OWNER {USER}")
    url = DatabaseUrl.parse(server.url(database))
    bring_up_to_date(url, DatabaseSettings(), report=lambda _: None)
    for table in TABLES:
        psql(server, database, f"ALTER TABLE {table} DISABLE TRIGGER USER")
    indexes = server.run(_INDEXES, database)
    for drop, _ in indexes:
        psql(server, database, drop)
    script = _FILL.format(
        users=users,
        events=users * EVENTS_A_USER,
        attempts=round(users * ATTEMPTS_A_USER),
        sessions=round(users * ENDED_SESSIONS_A_USER),
        audit_days=AUDIT_DAYS - 0.5,
        google=GOOGLE,
        pseudonym_account=_pseudonym("account"),
        pseudonym_network=_pseudonym("network"),
        pseudonym_session=_pseudonym("session"),
    )
    for statement in script.split(";\n"):
        psql(server, database, f"SET timezone = 'UTC'; {statement}")
    for _, make in indexes:
        psql(server, database, make)
    for table in TABLES:
        psql(server, database, f"ALTER TABLE {table} ENABLE TRIGGER USER")
    psql(server, database, "VACUUM ANALYZE")
