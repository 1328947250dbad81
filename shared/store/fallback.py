"""Postgres, and what serves while it is away: the file, or a snapshot of Postgres.

Away is what cannot be reached or does not answer in time (`StoreAway`); any other fault is an
answer, and never a reason to look elsewhere. A request is served by one side: the first that it
asks decides, so that what Postgres may have done already is not done again here.

Who signed up in an outage is pending, and served from the file until Postgres has them. Whatever
else is known without Postgres may be out of date, so that a login by it begins a degraded session
(see `shared.tokens`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from shared import scope
from shared.config import Settings
from shared.errors import EmailTaken, StoreAway, StoreBusy, StoreDamaged, StoreUnavailable
from shared.store import (
    Account,
    Attempt,
    Credentials,
    DatabaseHealth,
    ExternalMatch,
    Fallback,
    Store,
)
from shared.store.json_file import JsonFileStore
from shared.store.postgres import PostgresStore
from shared.store.snapshot import NoSnapshot, Snapshot
from shared.users import ExternalIdentity, User

if TYPE_CHECKING:
    from shared.clients import Client
    from shared.tokens import Session

T = TypeVar("T")


class FallbackStore:
    """A store in front of two; see `shared.store.Store` for the contract."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._is_full = settings.fallback == "full"
        self._postgres = PostgresStore(settings)
        self._file = JsonFileStore(settings, is_fallback=True)
        self._snapshot = Snapshot.of(settings)

    def reserve_sign_up(self, client: Client, now: float) -> None:
        """Count in Postgres or, in an outage, in memory."""
        self._serve(
            lambda: self._postgres.reserve_sign_up(client, now),
            lambda: self._file.reserve_sign_up(client, now),
            has_fallback=self._is_full,
        )

    def create_user(
        self,
        user: User,
        password_hash: str | None,
        identities: Sequence[ExternalIdentity] = (),
        *,
        client: Client | None = None,
    ) -> User:
        """Insert or, in an outage, append to the file. A pending user's address is taken."""
        with suppress(
            StoreDamaged
        ):  # Then Postgres alone decides, and a reconciliation settles it.
            pending = self._pending(key=user.email)
            if pending is not None and pending.id != user.id:
                raise EmailTaken
        return self._serve(
            lambda: self._postgres.create_user(user, password_hash, identities, client=client),
            lambda: self._create_offline(user, password_hash),
            has_fallback=self._is_full,
        )

    def _create_offline(self, user: User, password_hash: str | None) -> User:
        with suppress(StoreAway):  # Without a snapshot Postgres will tell, when it is back.
            if self._snapshot.find(user.email, time.time(), self._settings.snapshot_max_age):
                raise EmailTaken
        return self._file.create_user(user, password_hash)

    def begin_login(self, key: str, client: Client, now: float) -> Attempt:
        """Ask Postgres, the file for who is pending, and the snapshot in an outage."""
        return self._serve(
            lambda: self._begin_login(key, client, now),
            lambda: self._begin_offline(key, client, now),
        )

    def _begin_login(self, key: str, client: Client, now: float) -> Attempt:
        attempt = self._postgres.begin_login(key, client, now)
        is_nobody = attempt.credentials is None and attempt.locked_until is None
        if is_nobody and self._pending(key=key):
            return self._file.begin_login(key, client, now)
        return attempt

    def _begin_offline(self, key: str, client: Client, now: float) -> Attempt:
        found = self._known(key, now)
        if found is not None:
            found = replace(found, user=replace(found.user, is_degraded=True))
        attempt = self._file.attempts.begin("login", found, key, client, now)
        return replace(attempt, is_offline=True)

    def _known(self, key: str, now: float) -> Credentials | None:
        """Find whoever has the email key without asking Postgres. Raises StoreAway.

        Other users of the file than the pending are those of a time before Postgres: the snapshot
        knows better, and only an instance that has never had one has to believe the file.
        """
        found = self._file.credentials(key) if self._is_full else None
        if self._pending(key=key):
            return found
        try:
            return self._snapshot.find(key, now, self._settings.snapshot_max_age)
        except NoSnapshot:
            if not self._is_full:
                raise
            return found

    def end_login(self, attempt: Attempt, now: float) -> None:
        """Forget the attempts where they are counted."""
        if attempt.event:
            self._postgres.end_login(attempt, now)
        else:
            self._file.end_login(attempt, now)

    def begin_reauthentication(self, session: Session, client: Client, now: float) -> Attempt:
        """Ask Postgres. Who is pending has to wait until Postgres has them."""
        if self._is_pending(session.user.id):
            raise StoreUnavailable(cause="the user is pending, and cannot be changed")
        return self._postgres.begin_reauthentication(session, client, now)

    def change_password(
        self, attempt: Attempt, found: Credentials, new: str, now: float
    ) -> User | None:
        """Change it in Postgres; the snapshot has the old one."""
        with self._outdating(found.user.id):
            return self._postgres.change_password(attempt, found, new, now)

    def delete_user(self, attempt: Attempt, found: Credentials, now: float) -> bool:
        """Delete it in Postgres; the snapshot has it still."""
        with self._outdating(found.user.id):
            return self._postgres.delete_user(attempt, found, now)

    def link(
        self,
        found: Credentials,
        identities: Sequence[ExternalIdentity],
        *,
        provider: str,
        drops_password: bool,
        client: Client,
        now: float,
    ) -> User | None:
        """Link in Postgres; the snapshot may have a password that this drops."""
        with self._outdating(found.user.id):
            return self._postgres.link(
                found,
                identities,
                provider=provider,
                drops_password=drops_password,
                client=client,
                now=now,
            )

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Replace it where the user is."""
        return self._home(user_id).replace_password_hash(user_id, old, new)

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        """Look into Postgres, and for who is pending: what either has ended is over."""
        found = self._postgres.user(user_id, sid=sid)
        if found is None:
            kept = self._file.user(user_id, sid=sid) if self._pending(user_id=user_id) else None
            return None if kept is None or self._postgres.is_revoked(sid) else kept
        if not self._is_pending(user_id):
            return found
        kept = self._file.user(user_id, sid=sid)
        return kept and replace(found, epoch=max(found.epoch, kept.epoch))

    def account(self, user_id: str, *, sid: str) -> Account | None:
        """Look where the user is."""
        return self._home(user_id).account(user_id, sid=sid)

    def revoke_session(self, session: Session, client: Client, now: float) -> None:
        """Revoke in Postgres; of who is pending in the file, and in Postgres if it is there."""
        if not self._is_pending(session.user.id):
            self._postgres.revoke_session(session, client, now)
            return
        self._file.revoke_session(session, client, now)
        with suppress(StoreAway):  # Whoever is pending may have been brought there already.
            self._postgres.revoke_session(session, client, now)

    def revoke_all_sessions(self, session: Session, client: Client, now: float) -> bool:
        """Raise the epoch where `revoke_session` revokes."""
        if not self._is_pending(session.user.id):
            return self._postgres.revoke_all_sessions(session, client, now)
        ended = self._file.revoke_all_sessions(session, client, now)
        with suppress(StoreAway):
            ended |= self._postgres.revoke_all_sessions(session, client, now)
        return ended

    def find_external(
        self, identities: Sequence[ExternalIdentity], key: str, client: Client, now: float
    ) -> ExternalMatch | None:
        """Ask Postgres."""
        return self._postgres.find_external(identities, key, client, now)

    def express_session_user(self, sid: str) -> User | None:
        """Ask Postgres."""
        return self._postgres.express_session_user(sid)

    def delete_express_session(self, sid: str) -> None:
        """Delete in Postgres."""
        self._postgres.delete_express_session(sid)

    def clean_up(self, now: float) -> bool:
        """Clean up both sides, and take a snapshot if it is time for one."""
        self._file.clean_up(now)
        has_more = self._postgres.clean_up(now)
        interval = self._settings.snapshot_interval
        taken_at = self._snapshot.taken_at()
        if interval and (taken_at is None or not 0 <= now - taken_at < interval):
            with suppress(StoreBusy):  # Another process is at it.
                self._snapshot.take(self._postgres.database, now)
        return has_more

    def health(self) -> DatabaseHealth:
        """Ask Postgres."""
        return self._postgres.health()

    def fallback(self) -> Fallback:
        """Tell the policy, the outage, and what the files hold; a damaged file counts nobody."""
        try:
            pending = len(self._file.pending())
        except StoreUnavailable:
            pending = 0
        since = self._postgres.database.breaker.since
        return Fallback(self._settings.fallback, since, pending, self._snapshot.taken_at())

    def close(self) -> None:
        """Let go of Postgres, and of the snapshot."""
        self._postgres.close()
        self._snapshot.close()

    def _serve(
        self, online: Callable[[], T], offline: Callable[[], T], *, has_fallback: bool = True
    ) -> T:
        """Ask Postgres or, where it is away and has not served this request before, the other."""
        request = scope.current(self._settings.database_timeout)
        if request.is_offline:
            return offline()
        try:
            answer = online()
        except StoreAway:
            if request.is_offline is not None or not has_fallback:
                raise
            request.is_offline = True
            return offline()
        request.is_offline = False
        return answer

    def _pending(self, *, key: str = "", user_id: str = "") -> User | None:
        return self._file.find_pending(key=key, user_id=user_id) if self._is_full else None

    def _is_pending(self, user_id: str) -> bool:
        """Tell whether the file has the user; one that is damaged must not stop everybody else."""
        with suppress(StoreDamaged):
            return self._pending(user_id=user_id) is not None
        return False

    def _home(self, user_id: str) -> Store:
        """Give the store that has the user: Postgres, but for who is pending."""
        return self._file if self._is_pending(user_id) else self._postgres

    @contextmanager
    def _outdating(self, user_id: str) -> Iterator[None]:
        """Believe no snapshot that was taken before now about a user, whatever becomes of it."""
        try:
            yield
        finally:
            self._snapshot.void(user_id, time.time())
