"""Where users are kept: one small protocol, and an implementation a file.

Every implementation passes the one contract suite in `tests/test_store_contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from shared.config import Settings
from shared.users import User

if TYPE_CHECKING:
    from shared.database import PoolCounts


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login needs. `password_hash` is None without a local password."""

    user: User
    password_hash: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """What one round trip to the database showed."""

    timestamp: datetime
    version: str
    pool: PoolCounts


class Store(Protocol):
    """Every method may raise StoreUnavailable. All are safe to call from several threads."""

    def create_user(self, user: User, password_hash: str | None) -> User:
        """Store a new user, whose id the caller made and whose email is its own key.

        Atomic: of any number of calls with one email key, in any process, one succeeds. Repeating
        a call whose answer was lost gives the stored user. Raises EmailTaken.
        """
        ...

    def credentials(self, key: str) -> Credentials | None:
        """Find the user with this email key."""
        ...

    def user(self, user_id: str) -> User | None:
        """Find the user with this id, which may be any text."""
        ...

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Store the new hash if the old one is still there; tell whether it was."""
        ...

    def express_session_user(self, sid: str) -> User | None:
        """Find the user of the old server's session with this id, which may be any text.

        None where the session has expired, names no user, or there are no such sessions.
        """
        ...

    def delete_express_session(self, sid: str) -> None:
        """Log out on the old server, too. Nothing to delete is no error."""
        ...

    def health(self) -> DatabaseHealth | None:
        """Ask the database, within a deadline of its own; None where there is no database."""
        ...

    def close(self) -> None:
        """Let go of connections and files. The store may be used again."""
        ...


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name. Neither connects nor reads yet."""
    if settings.use_database:
        from shared.store.postgres import PostgresStore

        return PostgresStore(settings)
    from shared.store.json_file import JsonFileStore

    return JsonFileStore(settings.users_file)
