"""The rules of accounts with a password. Knows neither HTTP nor SQL.

Every check of a password passes the gate, is counted by the store, and only then costs a hash.
Callers refused by the gate are not counted.
"""

from __future__ import annotations

import unicodedata
import uuid
from typing import Protocol

from shared.credentials.password_policy import check_new_password
from shared.credentials.passwords import PasswordHasher
from shared.credentials.session_tokens import NAME_MAX_LENGTH
from shared.errors import (
    InvalidCredentials,
    InvalidInput,
    NotAuthenticated,
    PasswordUnchanged,
    ReauthenticationRequired,
    StoreBusy,
    StoreFault,
    StoreUnavailable,
    StoreUnreachable,
    TooManyAttempts,
    WrongPassword,
)
from shared.formats.unicode import normalized
from shared.model.clients import Client
from shared.model.emails import email_key, parse_new_email
from shared.model.sessions import Session
from shared.model.users import User, Verification
from shared.observe import log
from shared.rules.gate import Gate
from shared.store.contract import Attempt, Attempts, Credentials, Users

_UNCHANGED = "no user was changed: they changed meanwhile"


class _Store(Users, Attempts, Protocol):
    """The part of a store that these rules need."""


class Accounts:
    """Signs up, logs in, changes passwords and deletes accounts. Thread-safe."""

    def __init__(
        self,
        store: _Store,
        hasher: PasswordHasher,
        gate: Gate,
        *,
        password_min_length: int,
        lockout_seconds: float,
        verification: Verification = "unproved",
    ) -> None:
        """`password_min_length` is in characters; `lockout_seconds` is only told.

        `verification` is what is asked of the addresses of new users.
        """
        self._verification = verification
        self._store = store
        self._hasher = hasher
        self._gate = gate
        self._password_min_length = password_min_length
        self._lockout_seconds = lockout_seconds

    def sign_up(
        self,
        *,
        email: str,
        password: str,
        name: str | None,
        client: Client,
        locale: str | None = None,
    ) -> tuple[User, bool]:
        """Create a local user; tell whether the fallback stored them, in a database outage.

        `locale` is the language of their mails. Raises InvalidInput, Overloaded, TooManyAttempts
        and EmailTaken, of which nobody may be told where the proof of the address is required.
        """
        key = parse_new_email(email)
        name = normalized("NFC", name).strip() if name else None
        if name and len(name) > NAME_MAX_LENGTH:
            raise InvalidInput("name", f"The name may have at most {NAME_MAX_LENGTH} characters")
        if name and any(unicodedata.category(character) == "Cc" for character in name):
            raise InvalidInput("name", "The name may not have control characters")
        self.check_new_password(password, field="password", email=key, name=name)
        user = User(id=str(uuid.uuid4()), email=key, name=name or None, provider="local")
        if self._verification == "required":
            # No session begins, and one that ended would tell that the address was free.
            client = Client(client.address)
        with self._gate.sign_up(client):
            with self._gate.sign_ups.learning(client.network):
                reservation = self._store.reserve_sign_up(client)
            created = self._store.create_user(
                user,
                self._hasher.hash(password),
                client=client,
                reservation=reservation,
                verification=self._verification,
                locale=locale,
            )
            return created, reservation.is_offline

    def log_in(self, *, email: str, password: str, client: Client) -> tuple[User, bool]:
        """Verify an address and a password; give their user, and whether a mail may tell of it.

        Raises InvalidCredentials, with the same answer after the same work, for an unknown address,
        a wrong password, and an account without a usable hash or an attempt left; TooManyAttempts
        if the client's network has no attempt left, or the account too many successful logins;
        and Overloaded. In an outage it raises StoreUnreachable instead of InvalidCredentials,
        because an outage must not look like a wrong password. A user found by the fallback is
        degraded.
        """
        store, hasher = self._store, self._hasher
        with self._gate.attempt(client, "login"):
            with self._gate.attempts.learning(client.network):
                attempt = store.begin_login(email_key(email), client)
            found = attempt.credentials
            stored = found.password_hash if found else None
            is_required = self._verification == "required"
            if found is not None and is_required and found.user.email_verified is False:
                stored = None  # Verified all the same, so that it takes as long.
            if not hasher.verify(password, stored) or found is None or stored is None:
                if not attempt.is_conclusive:
                    raise StoreUnreachable(
                        cause="the password does not match the local data",
                        event="login_unverified",
                        account=attempt.account,
                        offline=attempt.is_offline or None,
                    )
                raise InvalidCredentials(
                    self._lockout_seconds,
                    asks_for_proof=is_required,
                    event="login_throttled" if attempt.locked_for is not None else "login_failed",
                    account=attempt.account,
                )
            if not found.user.is_degraded and hasher.needs_rehash(password, stored):
                try:
                    store.replace_password_hash(found.user.id, stored, hasher.hash(password))
                except (StoreUnavailable, StoreFault) as error:
                    # The login is valid; the next one tries again.
                    log.write("WARNING", "A password hash could not be renewed", cause=str(error))
            return found.user, store.end_login(attempt)

    def change_password(
        self, session: Session, *, current: str | None, new: str, client: Client
    ) -> User:
        """Change the password of the session's user, which ends all their sessions.

        Raises InvalidInput, PasswordUnchanged, Overloaded, and the errors of `prove_again`.
        """
        user = session.user
        self.check_new_password(new, field="newPassword", email=user.email, name=user.name)
        # Before the proof, so that it costs no attempt; it says nothing about the password.
        if current is not None and normalized("NFC", current) == normalized("NFC", new):
            raise PasswordUnchanged("newPassword")
        with self._gate.attempt(client, "reauthentication"):
            attempt, found = self.prove_again(session, "currentPassword", current, client)
            changed = self._store.change_password(attempt, found, self._hasher.hash(new))
        if changed is None:
            raise StoreBusy(cause=_UNCHANGED)
        return changed

    def delete(self, session: Session, *, password: str | None, client: Client) -> None:
        """Delete the session's user and all their data.

        Raises as `change_password` does, and AccountInUse.
        """
        with self._gate.attempt(client, "reauthentication"):
            attempt, found = self.prove_again(session, "password", password, client)
            if not self._store.delete_user(attempt, found):
                raise StoreBusy(cause=_UNCHANGED)

    def check_new_password(
        self, password: str, *, field: str, email: str, name: str | None
    ) -> None:
        """Hold a password to the rules; the errors are those of `check_new_password`."""
        check_new_password(
            password, min_length=self._password_min_length, field=field, email=email, name=name
        )

    def prove_again(
        self, session: Session, field: str, password: str | None, client: Client
    ) -> tuple[Attempt, Credentials]:
        """Verify the password of the session's user or, if there is none, a recent sign-in.

        Raises NotAuthenticated, TooManyAttempts, ReauthenticationRequired, WrongPassword, and
        InvalidInput for a missing password.
        """
        with self._gate.attempts.learning(client.network):
            attempt = self._store.begin_reauthentication(session, client)
        if attempt.locked_for is not None:
            raise TooManyAttempts(attempt.locked_for, event="reauthentication_throttled")
        found, event = attempt.credentials, "reauthentication_failed"
        if found is None:
            raise NotAuthenticated(cause="the user is gone or ended this session", event=event)
        if found.password_hash is None:
            if not any(session.has_just_proven(way, attempt.at) for way in ("google", "mail")):
                raise ReauthenticationRequired(event=event, user_id=found.user.id)
        elif password is None:
            sentence = "Please enter your current password"
            raise InvalidInput(field, sentence, event=event, user_id=found.user.id)
        elif not self._hasher.verify(password, found.password_hash):
            raise WrongPassword(field, event=event, user_id=found.user.id)
        return attempt, found
