"""Postgres, and what serves while it is away: the file, or a snapshot of Postgres.

Away is what cannot be reached or does not answer in time (`StoreUnreachable`); any other fault is
an answer, and never a reason to look elsewhere. A request is served by one side: the first that it
asks decides, so that what Postgres may have done already is not done again here.

Who signed up in an outage is pending, and served from the file until Postgres has them. Whatever
else is known without Postgres may be out of date, so that a login by it begins a degraded session
(see `shared.credentials.session_tokens`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.database.settings import DatabaseSettings
from shared.errors import AuthError, EmailTaken, StoreBusy, StoreUnavailable, StoreUnreachable
from shared.model.clients import Client
from shared.model.mails import AskedKind, Mail, OutboxStatus
from shared.model.sessions import Session
from shared.model.user_record import PENDING, REVOKED
from shared.model.users import ExternalIdentity, IdToken, User, Verification
from shared.observe import log
from shared.store.contract import (
    Account,
    Attempt,
    Credentials,
    DatabaseHealth,
    DatabaseStatus,
    ExternalMatch,
    FallbackStatus,
    MailStore,
    Reservation,
    Store,
)
from shared.store.json_file import users_file
from shared.store.json_file.store import JsonFileStore
from shared.store.json_file.users_file import Record
from shared.store.postgres.store import PostgresStore
from shared.store.settings import StoreSettings
from shared.store.snapshot import NoSnapshot, Snapshot

if TYPE_CHECKING:
    from shared.credentials.mail_tokens import MailToken
    from shared.database.pool import PoolCounts
    from shared.model.statistics import Statistics, Window


class FallbackStore(Store):
    """A store in front of two."""

    def __init__(
        self,
        settings: StoreSettings,
        database: DatabaseSettings,
        secrets: Sequence[str],
        *,
        sends_mail: bool = False,
    ) -> None:
        """Open nothing yet; `sends_mail` is Postgres'."""
        self._settings = settings
        self._is_full = settings.fallback == "full"
        self._postgres = PostgresStore(settings, database, secrets, sends_mail=sends_mail)
        self._file = JsonFileStore(settings, secrets, is_fallback=True)
        self._snapshot = Snapshot.of(settings, database, secrets)
        self.express_sessions = self._postgres.express_sessions
        self.database_status = _Status(
            settings.fallback, self._postgres.database_status, self._file, self._snapshot
        )

    @functools.cached_property
    def mail(self) -> MailStore:
        """Postgres' own, but for the snapshot."""
        return _Mail(self._postgres.mail, self._snapshot)

    def reserve_sign_up(
        self, client: Client, identities: Sequence[ExternalIdentity] = ()
    ) -> Reservation:
        """Count in Postgres or, in an outage, in memory."""
        try:
            return self._postgres.reserve_sign_up(client, identities)
        except StoreUnreachable:
            if not self._takes_sign_ups(identities):
                raise
        with _offline():
            self._file.reserve_sign_up(client)
        return Reservation(is_offline=True)

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
        """Insert or, in an outage, append to the file. A pending user's address is taken.

        What has counted the reservation decides; without one, what can be reached.
        """
        if reservation is None or not reservation.is_offline:
            pending = self._pending_if_readable(key=user.email)
            if pending and pending["id"] != user.id and not self._is_reconciled(pending):
                raise EmailTaken
            try:
                created = self._postgres.create_user(
                    user,
                    password_hash,
                    identities,
                    client=client,
                    verification=verification,
                    locale=locale,
                )
                self._end_replaced(client)
                return created
            except StoreUnreachable:
                if reservation is not None or not self._takes_sign_ups(identities):
                    raise
        assert not identities, "the file takes none, and what reserves has to be told of them"
        with _offline():
            created = self._create_offline(user, password_hash, verification, locale)
        self._end_replaced(client, is_offline=True)
        return created

    def _takes_sign_ups(self, identities: Sequence[ExternalIdentity]) -> bool:
        """Tell whether the file takes a sign-up: not one whose identities somebody may have."""
        return self._is_full and not identities

    def _create_offline(
        self, user: User, password_hash: str | None, verification: Verification, locale: str | None
    ) -> User:
        with suppress(StoreUnreachable):  # Without a snapshot Postgres will tell, when it is back.
            if self._snapshot.has(user.email, time.time(), self._settings.snapshot_max_age):
                raise EmailTaken
        # A mail is sent when Postgres has them.
        return self._file.create_user(user, password_hash, verification=verification, locale=locale)

    def begin_login(self, key: str, client: Client) -> Attempt:
        """Ask Postgres, the file for who is pending, and the snapshot in an outage."""
        try:
            return self._begin_login(key, client)
        except StoreUnreachable:
            with _offline():
                return self._begin_offline(key, client)

    def _begin_login(self, key: str, client: Client) -> Attempt:
        try:
            record = self._pending(key=key)  # The file first, as in `user`.
        except StoreUnavailable:
            # The user may be in it.
            return self._postgres.begin_login(key, client)._replace(is_conclusive=False)
        attempt = self._postgres.begin_login(key, client)
        is_known = attempt.credentials is not None or attempt.locked_for is not None
        if record is None or is_known:
            return attempt
        if self._is_reconciled(record):  # Perhaps since it was asked.
            return self._postgres.begin_login(key, client)
        found = users_file.credentials(record)
        counted = self._file.attempts.begin("login", found, key, client)
        return counted._replace(event=attempt.event)

    def _begin_offline(self, key: str, client: Client) -> Attempt:
        found = self._find_offline(key)
        if found is not None:
            found = replace(found, user=found.user._replace(is_degraded=True))
        attempt = self._file.attempts.begin("login", found, key, client)
        return attempt._replace(is_offline=True, is_conclusive=False)

    def _find_offline(self, key: str) -> Credentials | None:
        """Find whoever has the email key without asking Postgres. Raises StoreUnreachable.

        Other users of the file than the pending are those of a time before Postgres: the snapshot
        knows better, and only an instance that has never had one has to believe the file.
        """
        found = self._file.credentials(key) if self._is_full else None
        if self._pending(key=key):
            return found
        try:
            return self._snapshot.find(key, time.time(), self._settings.snapshot_max_age)
        except NoSnapshot:
            if found is None or self._snapshot.is_outdated(found.user.id):
                raise
            return found

    def end_login(self, attempt: Attempt) -> bool:
        """Count where the attempt is, and forget it there; memory may have counted it as well."""
        is_told = False
        if attempt.is_offline:
            with _offline():
                self._file.attempts.succeed(attempt, "login")
        else:
            try:
                is_told = self._postgres.end_login(attempt)
            finally:  # The password was right, whatever becomes of the rest.
                self._file.attempts.forget(attempt.keys)
        self._end_replaced(attempt.client, is_offline=attempt.is_offline)
        return is_told

    def _end_replaced(self, client: Client | None, *, is_offline: bool = False) -> None:
        """End the session that a client had in the file, too, where its user is pending."""
        session = client.session if client else None
        if session is not None and self._is_pending(session.user.id):
            self._file.end_replaced(client)
        elif session is not None and is_offline:
            log.write("WARNING", "The browser's previous session could not be revoked")

    def begin_reauthentication(self, session: Session, client: Client) -> Attempt:
        """Ask Postgres. Who is pending has to wait until Postgres has them."""
        if self._is_pending(session.user.id):
            raise StoreUnavailable(cause="the user is pending, and cannot be changed")
        return self._postgres.begin_reauthentication(session, client)

    def change_password(self, attempt: Attempt, found: Credentials, new: str) -> User | None:
        """Change it in Postgres; the snapshot has the old one."""
        with self._invalidating_snapshot(found.user.id):
            return self._postgres.change_password(attempt, found, new)

    def delete_user(self, attempt: Attempt, found: Credentials) -> bool:
        """Delete it in Postgres; the snapshot has it still."""
        with self._invalidating_snapshot(found.user.id):
            return self._postgres.delete_user(attempt, found)

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
        """Link in Postgres; the snapshot may have a password that this drops."""
        with self._invalidating_snapshot(found.user.id):
            linked = self._postgres.link(
                found,
                identities,
                provider=provider,
                drops_password=drops_password,
                client=client,
                proves_address=proves_address,
            )
        if linked is not None:
            self._end_replaced(client)
        return linked

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        store = self._file if self._is_pending(user_id) else self._postgres
        return store.replace_password_hash(user_id, old, new)

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        """Look into Postgres, and for who is pending: what either has ended is over."""
        # The file first: whoever leaves it meanwhile is in Postgres by then.
        record = self._pending_if_readable(user_id=user_id)
        found = self._postgres.user(user_id, sid=sid)
        if record is None:
            if found is None:
                self._pending(user_id=user_id)  # Raises where the file cannot be read.
            return found
        if sid in record.get(REVOKED, {}) or not users_file.is_enabled(record):
            return None
        operation = record[PENDING]["operation"]
        if found is None and self._postgres.is_revoked_or_reconciled(sid, operation):
            return self._postgres.user(user_id, sid=sid)  # Who may have come since it was asked.
        kept = users_file.user(record)
        return found._replace(epoch=max(found.epoch, kept.epoch)) if found else kept

    def account(self, user_id: str, *, sid: str) -> Account | None:
        """Look where the user is; sessions end as in `user`."""
        if not self._is_pending(user_id):
            return self._postgres.account(user_id, sid=sid)
        user = self.user(user_id, sid=sid)
        if user is None:
            return None
        found = self._file.account(user_id, sid=sid) or self._postgres.account(user_id, sid=sid)
        return found and found._replace(user=user)

    def revoke_session(self, session: Session, client: Client) -> None:
        """Revoke in Postgres; of who is pending in the file, and in Postgres if it is there."""
        if not self._is_pending(session.user.id):
            self._postgres.revoke_session(session, client)
            return
        self._file.revoke_session(session, client)
        with self._tolerating_outage(session.user.id):
            self._postgres.revoke_session(session, client)

    def revoke_all_sessions(self, session: Session, client: Client) -> bool:
        """Raise the epoch where `revoke_session` revokes."""
        if not self._is_pending(session.user.id):
            return self._postgres.revoke_all_sessions(session, client)
        ended = self._file.revoke_all_sessions(session, client)
        with self._tolerating_outage(session.user.id):
            ended |= self._postgres.revoke_all_sessions(session, client)
        return ended

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        token: IdToken,
        client: Client,
    ) -> ExternalMatch | None:
        match = self._postgres.find_external(identities, key, token, client)
        if match is not None and match.is_linked and match.has_all:
            self._end_replaced(client)
        return match

    def clean_up(self) -> bool:
        """Clean up both sides, and take a snapshot if it is time for one."""
        self._file.clean_up()
        try:
            return self._postgres.clean_up()
        finally:  # Whatever it could not do, logins of an outage need the snapshot.
            if not self._postgres.database.breaker.is_open:
                self._renew_snapshot(time.time())

    def _renew_snapshot(self, now: float) -> None:
        interval = self._settings.snapshot_interval
        taken_at = self._snapshot.taken_at()
        if interval and (taken_at is None or not 0 <= now - taken_at < interval):
            with suppress(StoreBusy):  # Another process is at it.
                postgres, lag = self._postgres, self._settings.snapshot_lag
                self._snapshot.take(postgres.database, now, postgres.replica, max_age=lag)

    def statistics(self, window: Window) -> Statistics:
        return self._postgres.statistics(window)

    def close(self) -> None:
        self._postgres.close()
        self._snapshot.close()

    def _pending(self, *, key: str = "", user_id: str = "") -> Record | None:
        return self._file.find_pending(key=key, user_id=user_id) if self._is_full else None

    def _pending_if_readable(self, *, key: str = "", user_id: str = "") -> Record | None:
        """As `_pending`, but a file that cannot be read must not stop whom Postgres knows."""
        with suppress(StoreUnavailable):
            return self._pending(key=key, user_id=user_id)
        return None

    def _is_pending(self, user_id: str) -> bool:
        return self._pending_if_readable(user_id=user_id) is not None

    def _is_reconciled(self, record: Record) -> bool:
        """Tell whether Postgres has decided about a pending user, whom the file has still."""
        with suppress(StoreUnreachable):
            return self._postgres.is_revoked_or_reconciled("", record[PENDING]["operation"])
        return False

    @contextmanager
    def _tolerating_outage(self, user_id: str) -> Iterator[None]:
        """Let Postgres be away for who is pending still: the file has kept it for then."""
        try:
            yield
        except StoreUnreachable:
            if not self._is_pending(user_id):
                raise

    @contextmanager
    def _invalidating_snapshot(self, user_id: str) -> Iterator[None]:
        """Believe no snapshot that was taken before now about a user, whatever becomes of it."""
        try:
            yield
        finally:
            self._snapshot.invalidate(user_id)


@contextmanager
def _offline() -> Iterator[None]:
    """Have an error tell the log that the fallback has served the request."""
    try:
        yield
    except AuthError as error:
        error.facts["offline"] = True
        raise


class _Mail(MailStore):
    """Postgres' own. Who is pending has to wait; the snapshot is not believed of who is changed."""

    def __init__(self, mail: MailStore, snapshot: Snapshot) -> None:
        self._mail, self._snapshot = mail, snapshot

    def ask_for_mail(
        self, kind: AskedKind, key: str, *, locale: str | None, client: Client
    ) -> None:
        self._mail.ask_for_mail(kind, key, locale=locale, client=client)

    def reset_password(self, token: MailToken, new: str, client: Client) -> User | None:
        try:
            return self._mail.reset_password(token, new, client)
        finally:
            self._snapshot.invalidate(token.user_id)

    def verify_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        return self._mail.verify_email(token, sid=sid, client=client, attempt=attempt)

    def request_email_change(self, attempt: Attempt, found: Credentials, email: str) -> bool:
        return self._mail.request_email_change(attempt, found, email)

    def change_email(
        self, token: MailToken, *, sid: str, client: Client, attempt: Attempt | None = None
    ) -> User | None:
        try:
            return self._mail.change_email(token, sid=sid, client=client, attempt=attempt)
        finally:
            self._snapshot.invalidate(token.user_id)

    def log_in(self, token: MailToken, client: Client) -> User | None:
        try:
            return self._mail.log_in(token, client)
        finally:
            self._snapshot.invalidate(token.user_id)

    def lease(self, limit: int) -> list[Mail]:
        return self._mail.lease(limit)

    def delivered(self, mail_id: str) -> None:
        self._mail.delivered(mail_id)

    def postpone(self, mail_id: str, seconds: float) -> None:
        self._mail.postpone(mail_id, seconds)

    def status(self) -> OutboxStatus:
        return self._mail.status()


class _Status(DatabaseStatus):
    """The database's own, and what the files hold; a damaged one counts nobody."""

    def __init__(
        self, mode: str, database: DatabaseStatus, file: JsonFileStore, snapshot: Snapshot
    ) -> None:
        self._mode, self._database = mode, database
        self._file, self._snapshot = file, snapshot

    def health(self) -> DatabaseHealth:
        return self._database.health()

    def pool(self) -> PoolCounts:
        return self._database.pool()

    def fallback(self) -> FallbackStatus:
        try:
            pending = len(self._file.pending())
        except StoreUnavailable:
            pending = 0
        return self._database.fallback()._replace(
            mode=self._mode,
            pending=pending,
            snapshot=self._snapshot.taken_at(),
        )
