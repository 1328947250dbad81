"""The rules of accounts and sessions. Knows neither HTTP nor SQL."""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable

from shared import log
from shared.emails import email_key, parse_new_email
from shared.errors import (
    InvalidCredentials,
    InvalidInput,
    NotAuthenticated,
    StoreFault,
    StoreUnavailable,
)
from shared.passwords import PasswordHasher
from shared.store import Store
from shared.tokens import NAME_MAX_LENGTH, InvalidToken, IssuedToken, SessionTokens
from shared.users import User


def sign_up(
    store: Store,
    hasher: PasswordHasher,
    *,
    email: str,
    password: str,
    name: str | None,
    password_min_length: int,
) -> User:
    """Create a local user.

    Raises InvalidInput and EmailTaken. The password is counted in code points after NFC, and no
    rule of composition is asked of it (NIST SP 800-63B-4, 3.1.1.2).
    """
    key = parse_new_email(email)
    if len(unicodedata.normalize("NFC", password)) < password_min_length:
        raise InvalidInput(
            "password", f"The password must have at least {password_min_length} characters"
        )
    name = unicodedata.normalize("NFC", name).strip() if name else None
    if name and len(name) > NAME_MAX_LENGTH:
        raise InvalidInput("name", f"The name may have at most {NAME_MAX_LENGTH} characters")
    if name and any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidInput("name", "The name may not have control characters")
    user = User(id=str(uuid.uuid4()), email=key, name=name or None, provider="local")
    return store.create_user(user, hasher.hash(password))


def log_in(store: Store, hasher: PasswordHasher, *, email: str, password: str) -> User:
    """Give the user whose address and password these are.

    Raises InvalidCredentials, the same and after the same work for an unknown address, a wrong
    password, and a user who has no usable password hash.
    """
    found = store.credentials(email_key(email))
    stored = found.password_hash if found else None
    if not hasher.verify(password, stored) or found is None or stored is None:
        raise InvalidCredentials
    if hasher.needs_rehash(password, stored):
        try:
            store.replace_password_hash(found.user.id, stored, hasher.hash(password))
        except (StoreUnavailable, StoreFault) as error:
            # The login itself is sound, and the next one tries again.
            log.write("WARNING", "A password hash could not be renewed", cause=str(error))
    return found.user


def current_user(
    store: Callable[[], Store],
    tokens: SessionTokens,
    token: str | None,
    now: float,
    *,
    express_sid: str | None = None,
) -> tuple[User, IssuedToken | None]:
    """Give the session's user and, where the session is renewed or exchanged, its new token.

    A fresh session is believed by its signature alone. A stale one costs one look into the store,
    and so does exchanging the old server's session `express_sid`, for which there is no token yet;
    the store is opened only then.
    Raises NotAuthenticated, and StoreUnavailable where a session cannot be looked up.
    """
    if token is None:
        user = store().express_session_user(express_sid) if express_sid else None
        # The old server knows no epoch: what ends a user's sessions here ends those there, too.
        if user is None or user.epoch > 0:
            raise NotAuthenticated
        return user, tokens.issue(user, now)
    try:
        session = tokens.read(token, now)
    except InvalidToken as error:
        raise NotAuthenticated(cause=str(error)) from error
    if session.is_fresh(now):
        return session.user, None
    user = store().user(session.user.id)
    if user is None or user.epoch != session.user.epoch:
        raise NotAuthenticated(cause="the user is gone or ended this session")
    return user, tokens.issue(user, now, renews=session)


def log_out(store: Callable[[], Store], express_sid: str | None) -> None:
    """End the old server's session, if there is one. Raises StoreUnavailable where it goes on."""
    if express_sid is not None:
        store().delete_express_session(express_sid)
