"""What tests ask of a store and of the accounts in it, as one client at one time."""

from __future__ import annotations

from shared import accounts
from shared.clients import Client
from shared.passwords import PasswordHasher
from shared.store import Attempt, Credentials, Store
from shared.tokens import Session, SessionTokens
from shared.users import User
from tests.support.emulator import SECRET

NOW = 1_800_000_000.5
CLIENT = Client("203.0.113.7")
TOKENS = SessionTokens([SECRET])


def credentials(store: Store, key: str, *, now: float = NOW) -> Credentials | None:
    """Look up an address as a login does that succeeds, so that no attempt is missing after it."""
    attempt = store.begin_login(key, CLIENT, now)
    assert attempt.locked_until is None
    store.end_login(attempt, now)
    return attempt.credentials


def session_of(user: User, *, now: float = NOW, method: str = "password") -> Session:
    """Give a session that has just begun."""
    return TOKENS.read(TOKENS.issue(user, now, method=method).text, now)


def stored(store: Store, user: User, now: float = NOW) -> tuple[Attempt, Credentials]:
    """Find a user as a change of the password does."""
    attempt = store.begin_reauthentication(session_of(user), CLIENT, now)
    assert attempt.credentials is not None
    return attempt, attempt.credentials


def sign_up(store: Store, hasher: PasswordHasher, email: str, password: str) -> User:
    return accounts.sign_up(
        store,
        hasher,
        email=email,
        password=password,
        name=None,
        password_min_length=8,
        client=CLIENT,
        now=NOW,
    )


def log_in(store: Store, hasher: PasswordHasher, email: str, password: str) -> User:
    return accounts.log_in(store, hasher, email=email, password=password, client=CLIENT, now=NOW)
