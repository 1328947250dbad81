"""Users in Postgres, as requests need them. One statement, one round trip, a method."""

from __future__ import annotations

import functools
import re

from shared.config import Settings
from shared.connection import Row
from shared.database import Database
from shared.errors import EmailTaken, StoreFault, StoreRefused
from shared.store import Credentials, DatabaseHealth
from shared.store.preparation import prepare
from shared.users import User

HEALTH_TIMEOUT = 3.0
"""Seconds that a health probe waits, all in all."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# The update that changes nothing is for a repeated call whose first answer was lost: it waits for
# the first, and gives the row if it is the caller's own. Another's row is not given.
_CREATE = """
INSERT INTO users (id, email, email_key, password, name, provider)
VALUES ($1::uuid, $2::text, $2::text, $3, $4, $5)
ON CONFLICT (email_key) DO UPDATE SET email_key = users.email_key WHERE users.id = excluded.id
RETURNING id, email, name, provider, epoch
"""
_UNIQUE_VIOLATION = "23505"
_CREDENTIALS = """
SELECT id, email, name, provider, epoch, password FROM users WHERE email_key = $1
"""
_USER = "SELECT id, email, name, provider, epoch FROM users WHERE id = $1::uuid"
_REPLACE_HASH = """
UPDATE users SET password = $3 WHERE id = $1::uuid AND password = $2 RETURNING id
"""
# The table is connect-pg-simple's, which also writes and compares `expire` in the connection's time
# zone. With u.id cast to text, instead of the text to UUID, the index could not be used.
_EXPRESS_USER = """
SELECT u.id, u.email, u.name, u.provider, u.epoch FROM session s JOIN users u ON u.id =
    CASE WHEN s.sess->>'userId' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    THEN (s.sess->>'userId')::uuid END
WHERE s.sid = $1 AND s.expire >= now()
"""
_DELETE_EXPRESS = "DELETE FROM session WHERE sid = $1"
_UNDEFINED_TABLE, _DATA_EXCEPTION = "42P01", "22"
_HEALTH = "SELECT now(), current_setting('server_version')"


class PostgresStore:
    """Users in a table; see `shared.store.Store` for the contract."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        if settings.database_url is None:
            raise ValueError("the Postgres store needs a database_url")
        prepared = functools.partial(prepare, apply=settings.auto_migrate)
        self._database = Database(settings.database_url, settings, prepare=prepared)

    def create_user(self, user: User, password_hash: str | None) -> User:
        """Insert, and let the database decide."""
        try:
            rows = self._database.execute(
                _CREATE, user.id, user.email, password_hash, user.name, user.provider
            )
        except StoreFault as error:
            # The id, or the bare `email` of a row that the old server wrote.
            if error.sqlstate == _UNIQUE_VIOLATION:
                raise EmailTaken from error
            raise
        if not rows:
            raise EmailTaken
        return _user(rows[0])

    def credentials(self, key: str) -> Credentials | None:
        """Find the row that holds the email key."""
        rows = self._database.execute(_CREDENTIALS, key)
        return Credentials(_user(rows[0]), rows[0][5]) if rows else None

    def user(self, user_id: str) -> User | None:
        """Find the row with the id; what is no UUID is nobody's."""
        if not _UUID.fullmatch(user_id.lower()):  # A users file may have it in capitals.
            return None
        rows = self._database.execute(_USER, user_id)
        return _user(rows[0]) if rows else None

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Update where the old hash still stands."""
        return bool(self._database.execute(_REPLACE_HASH, user_id, old, new))

    def express_session_user(self, sid: str) -> User | None:
        """Join the session with its user; a `userId` that is no UUID is nobody's."""
        rows = self._execute_express(_EXPRESS_USER, sid)
        return _user(rows[0]) if rows else None

    def delete_express_session(self, sid: str) -> None:
        """Delete the row."""
        self._execute_express(_DELETE_EXPRESS, sid)

    def _execute_express(self, statement: str, sid: str) -> list[Row]:
        try:
            return self._database.execute(statement, sid)
        except StoreFault as error:
            # There was no old server, or SQL cannot read a `sess` as JSON.parse can (\u0000).
            if error.sqlstate.startswith((_UNDEFINED_TABLE, _DATA_EXCEPTION)):
                return []
            raise StoreRefused(
                cause=f"the table session is not connect-pg-simple's: {error}"
            ) from (error)

    def health(self) -> DatabaseHealth:
        """Ask for the time and the version."""
        ((timestamp, version),) = self._database.execute(_HEALTH, timeout=HEALTH_TIMEOUT)
        return DatabaseHealth(timestamp, f"PostgreSQL {version}", self._database.counts())

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()


def _user(row: Row) -> User:
    user_id, email, name, provider, epoch, *_ = row
    return User(id=str(user_id), email=email, name=name, provider=provider or "local", epoch=epoch)
