"""A store in front of another: what ends sessions is announced once it is done.

Of a call that fails nothing is announced, even where the store may have done it: then it is known
elsewhere when the sessions are stale. Too much may be announced: the store decides.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from shared.model.clients import Client
from shared.model.mails import AskedKind, Mail, OutboxStatus
from shared.model.sessions import Session
from shared.model.users import ExternalIdentity, IdToken, User, Verification
from shared.store.contract import (
    Account,
    Attempt,
    Credentials,
    ExternalMatch,
    MailStore,
    Reservation,
    Store,
)

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailToken
    from shared.model.statistics import Statistics, Window


class Announce(Protocol):
    """What is told; it raises nothing."""

    def __call__(self, *ended: Session | User) -> None:
        """Hear of sessions that have ended, and of users whose sessions of that epoch have."""
        ...


class AnnouncingStore(Store):
    """The other store's methods, and an announcement after those that end sessions."""

    def __init__(self, store: Store, announce: Announce) -> None:
        """Ask nothing yet."""
        self._store = store
        self._announce = announce
        self.express_sessions = store.express_sessions
        self.database_status = store.database_status

    @functools.cached_property
    def mail(self) -> MailStore:
        """The other store's, likewise."""
        return _AnnouncingMail(self._store.mail, self._announce)

    def create_user(
        self,
        user: User,
        password_hash: str | None,
        identities: Sequence[ExternalIdentity] = (),
        *,
        client: Client | None = None,
        reservation: Reservation | None = None,
        verification: Verification = "from_before",
        locale: str | None = None,
    ) -> User:
        created = self._store.create_user(
            user,
            password_hash,
            identities,
            client=client,
            reservation=reservation,
            verification=verification,
            locale=locale,
        )
        self._announce(*_replaced(client))
        return created

    def end_login(self, attempt: Attempt) -> bool:
        is_told = self._store.end_login(attempt)
        self._announce(*_replaced(attempt.client))
        return is_told

    def change_password(self, attempt: Attempt, found: Credentials, new: str) -> User | None:
        changed = self._store.change_password(attempt, found, new)
        if changed is not None:
            self._announce(found.user)
        return changed

    def delete_user(self, attempt: Attempt, found: Credentials) -> bool:
        is_deleted = self._store.delete_user(attempt, found)
        if is_deleted:
            self._announce(found.user)
        return is_deleted

    def revoke_session(self, session: Session, client: Client) -> None:
        self._store.revoke_session(session, client)
        self._announce(session)

    def revoke_all_sessions(self, session: Session, client: Client) -> bool:
        are_revoked = self._store.revoke_all_sessions(session, client)
        if are_revoked:
            self._announce(session.user)
        return are_revoked

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        token: IdToken,
        client: Client,
    ) -> ExternalMatch | None:
        match = self._store.find_external(identities, key, token, client)
        if match is not None and match.is_linked and match.has_all:
            self._announce(*_replaced(client))
        return match

    def link(
        self,
        found: Credentials,
        identities: Sequence[ExternalIdentity],
        *,
        provider: str,
        drops_password: bool,
        client: Client,
        proves_address: bool = False,
    ) -> User | None:
        linked = self._store.link(
            found,
            identities,
            provider=provider,
            drops_password=drops_password,
            client=client,
            proves_address=proves_address,
        )
        if linked is not None:
            self._announce(*_replaced(client), *_ended(linked, found.user.epoch))
        return linked

    def reserve_sign_up(
        self, client: Client, identities: Sequence[ExternalIdentity] = ()
    ) -> Reservation:
        return self._store.reserve_sign_up(client, identities)

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        return self._store.user(user_id, sid=sid)

    def account(self, user_id: str, *, sid: str) -> Account | None:
        return self._store.account(user_id, sid=sid)

    def begin_login(self, key: str, client: Client) -> Attempt:
        return self._store.begin_login(key, client)

    def begin_reauthentication(self, session: Session, client: Client) -> Attempt:
        return self._store.begin_reauthentication(session, client)

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        return self._store.replace_password_hash(user_id, old, new)

    def statistics(self, window: Window) -> Statistics:
        return self._store.statistics(window)

    def clean_up(self) -> bool:
        return self._store.clean_up()

    def close(self) -> None:
        self._store.close()


class _AnnouncingMail(MailStore):
    def __init__(self, mail: MailStore, announce: Announce) -> None:
        self._mail, self._announce = mail, announce

    def reset_password(self, token: MailToken, new: str, client: Client) -> User | None:
        user = self._mail.reset_password(token, new, client)
        if user is not None:
            self._announce(*_ended(user, token.epoch))
        return user

    def change_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        user = self._mail.change_email(token, sid=sid, client=client, attempt=attempt)
        if user is not None:
            self._announce(*_ended(user, token.epoch))
        return user

    def log_in(self, token: MailToken, client: Client) -> User | None:
        user = self._mail.log_in(token, client)
        if user is not None:
            self._announce(*_replaced(client), *_ended(user, token.epoch))
        return user

    def ask_for_mail(
        self, kind: AskedKind, key: str, *, locale: str | None, client: Client
    ) -> None:
        self._mail.ask_for_mail(kind, key, locale=locale, client=client)

    def verify_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        return self._mail.verify_email(token, sid=sid, client=client, attempt=attempt)

    def request_email_change(self, attempt: Attempt, found: Credentials, email: str) -> bool:
        return self._mail.request_email_change(attempt, found, email)

    def lease(self, limit: int) -> list[Mail]:
        return self._mail.lease(limit)

    def delivered(self, mail_id: str) -> None:
        self._mail.delivered(mail_id)

    def postpone(self, mail_id: str, seconds: float) -> None:
        self._mail.postpone(mail_id, seconds)

    def status(self) -> OutboxStatus:
        return self._mail.status()


def _replaced(client: Client | None) -> list[Session]:
    """Give the session that ends where a new one begins, if there is one."""
    session = client.session if client else None
    return [] if session is None else [session]


def _ended(user: User, seen: int) -> list[User]:
    """Give the user with the epochs that may just have ended, where it is not as it was seen.

    A link may have been made before the latest epoch but one.
    """
    if user.epoch == seen:
        return []
    return [user._replace(epoch=epoch) for epoch in {seen, user.epoch - 1}]
