"""Users in one JSON file of the old server's shape: the store without a database, or its fallback.

A write happens under the file's lock and replaces it as a whole; a file that cannot be understood
is refused and left alone. Members that this system doesn't know are kept. What the old server did
not know is kept with each user: `epoch`, `identities`, `revokedSessions`, each with its end, and,
of who signed up while Postgres was away, `pending`: the id of the operation that brings them there.
Attempts are counted in memory, and the audit is the log's alone.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from shared import files
from shared.errors import EmailTaken, StoreBusy, StoreUnavailable
from shared.formats.strict_json import InvalidJson
from shared.formats.timestamps import from_iso, now_iso
from shared.model.clients import Client
from shared.model.emails import email_key
from shared.model.sessions import SESSION_SECONDS, Session
from shared.model.statistics import Statistics, Window
from shared.model.throttling import Pseudonyms
from shared.model.user_record import PENDING, REVOKED
from shared.model.users import (
    BROUGHT_ISSUERS,
    MAX_IDENTITIES,
    ExternalIdentity,
    IdToken,
    User,
    Verification,
    next_epoch,
)
from shared.observe import log, request_context
from shared.store.attempt_outcomes import succeeded
from shared.store.contract import Account, Attempt, Credentials, ExternalMatch, Reservation, Store
from shared.store.json_file import editing, users_file
from shared.store.json_file.attempts import MemoryAttempts
from shared.store.json_file.users_file import Record, Users
from shared.store.settings import StoreSettings

if TYPE_CHECKING:
    from shared.store.json_file.mail import JsonFileMail

T = TypeVar("T")

LOCK_TIMEOUT = 3.0
"""Seconds that a writer waits for the writers before it, if its request has as many left."""


class JsonFileStore(Store):
    """Users in a file."""

    express_sessions = None
    database_status = None

    def __init__(
        self,
        settings: StoreSettings,
        secrets: Sequence[str] = (),
        *,
        is_fallback: bool = False,
        sends_mail: bool = False,
    ) -> None:
        """Read nothing yet. A file that doesn't exist holds no users.

        Of a fallback, everyone who signs up is pending until Postgres has them. `sends_mail` says
        whether somebody delivers what is put into the outbox.
        """
        self._sends_mail = sends_mail
        self._is_fallback = is_fallback
        self._path = settings.users_file
        self._outbox_folder = self._path.with_name(f"{self._path.name}.outbox")
        self._users = users_file.index(None, [])
        self._reading = threading.Lock()
        self._refused: tuple[tuple[int, ...], StoreUnavailable] | None = None
        pseudonyms = Pseudonyms(secrets)
        self.attempts = MemoryAttempts(settings.limits, pseudonyms)

    @functools.cached_property
    def mail(self) -> JsonFileMail:
        """What is done for whoever reads a user's mailbox, and the outbox."""
        from shared.store.json_file.mail import JsonFileMail
        from shared.store.json_file.outbox import OutboxFolder

        return JsonFileMail(self, OutboxFolder(self._outbox_folder), sends_mail=self._sends_mail)

    def record(self, *, key: str) -> Record | None:
        """Find the record that holds the email key."""
        return self._read().by_key.get(key)

    def reserve_sign_up(
        self, client: Client, identities: Sequence[ExternalIdentity] = ()
    ) -> Reservation:
        self.attempts.sign_up(client)
        return Reservation()

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
        try:
            created = self._create_user(
                user, password_hash, identities, verification, locale, client
            )
        except EmailTaken:
            if verification == "required":
                self.mail.tell_owner(user.email, locale, client)
            raise
        self.end_replaced(client)
        return created

    def _create_user(
        self,
        user: User,
        password_hash: str | None,
        identities: Sequence[ExternalIdentity],
        verification: Verification,
        locale: str | None,
        client: Client | None,
    ) -> User:
        with self._changing() as users:
            same_key, same_id = users.by_key.get(user.email), users.by_id.get(user.id)
            if same_key or same_id:
                if same_key is same_id and same_key is not None:
                    return users_file.user(same_key)
                raise EmailTaken
            if any(identity in users.by_identity for identity in identities):
                raise EmailTaken
            record: Record = {
                "id": user.id,
                "email": user.email,
                "password": password_hash,
                "name": user.name,
                "provider": user.provider,
                "createdAt": now_iso(),
                "updatedAt": now_iso(),
                "identities": users_file.with_identities(None, identities),
                "locale": locale,
            }
            if verification == "proved":
                record[users_file.VERIFIED_AT] = now_iso()
            elif verification != "from_before":
                record[users_file.UNVERIFIED_SINCE] = now_iso()
                if verification != "unproved":
                    self.mail.ask_for_proof(record, client)
            if self._is_fallback:
                record[PENDING] = {"operation": str(uuid.uuid4())}
            # The old server leaves out what a user doesn't have.
            record = {name: value for name, value in record.items() if value not in (None, [])}
            self._write(users, None, record)
            if self._sends_mail:
                self.mail.tell_of_network(record, client)  # It is the first one known.
            return users_file.user(record)

    def pending(self) -> list[str]:
        """Give the operations that Postgres lacks, in the order of the sign-ups."""
        return [record[PENDING]["operation"] for record in self._read().pending]

    def find_pending(self, *, key: str = "", user_id: str = "") -> Record | None:
        """Find a pending user by the email key or by the id."""
        users = self._read()
        record = users.by_key.get(key) if key else users.by_id.get(user_id)
        return record if record and PENDING in record else None

    def resolve(self, operation: str, bring: Callable[[Record], T]) -> T | None:
        """Have `bring` take a pending user to Postgres, then leave the record out of the file.

        Nobody else changes the file meanwhile. Gives what `bring` does, or None where there is no
        such operation. What `bring` raises leaves everything as it is.
        """
        with self._changing() as users:
            for record in users.pending:
                if record[PENDING]["operation"] == operation:
                    brought = bring(record)
                    self._write(users, record, None)
                    return brought
            return None

    def begin_login(self, key: str, client: Client) -> Attempt:
        return self.attempts.begin("login", self.credentials(key), key, client)

    def begin_reauthentication(self, session: Session, client: Client) -> Attempt:
        record = self._record_of(self._read(), session)
        found = users_file.credentials(record) if record else None
        key = email_key(session.user.email)
        return self.attempts.begin("reauthentication", found, key, client)

    def credentials(self, key: str) -> Credentials | None:
        """Find the record that holds the email key."""
        record = self._read().by_key.get(key)
        return users_file.credentials(record) if record else None

    def end_login(self, attempt: Attempt) -> bool:
        self.attempts.succeed(attempt, "login")
        is_told = False
        if self._sends_mail and (record := self._read().by_id.get(succeeded(attempt).id)):
            is_told = self.mail.tell_of_network(record, attempt.client)
        self.end_replaced(attempt.client)
        return is_told

    def change_password(self, attempt: Attempt, found: Credentials, new: str) -> User | None:
        self.attempts.succeed(attempt, "reauthentication")
        epoch = next_epoch(found.user.epoch)

        def change(record: Record) -> Record:
            self.mail.tell("password_changed", record, attempt.client)
            return {"password": new, "epoch": epoch}

        return self._change(found, change)

    def delete_user(self, attempt: Attempt, found: Credentials) -> bool:
        self.attempts.succeed(attempt, "reauthentication")
        with self._changing() as users:
            record = users.by_id.get(found.user.id)
            if not users_file.is_as_found(record, found):
                return False
            self.mail.tell("account_deleted", record, attempt.client)
            self._write(users, record, None)
            self.mail.forget(found.user.id)
            return True

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        with self._changing() as users:
            record = users.by_id.get(user_id)
            if record is None or record.get("password") != old:
                return False
            self._replace(users, record, {"password": new})
            return True

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        record = self._read().by_id.get(user_id)
        return users_file.user(record) if record and _goes_on(record, sid) else None

    def account(self, user_id: str, *, sid: str) -> Account | None:
        record = self._read().by_id.get(user_id)
        if record is None or not _goes_on(record, sid):
            return None
        return Account(
            user=users_file.user(record),
            created_at=record.get("createdAt"),
            updated_at=record.get("updatedAt"),
            has_password=record.get("password") is not None,
            identities=users_file.identities(record),
            events=[],
            claims=record.get("claims") or {},
        )

    def end_replaced(self, client: Client | None) -> None:
        """End the session that a client had, where it had one; the new one has begun by now."""
        if client is not None and client.session is not None:
            try:
                self._revoke(client.session)
            except StoreUnavailable as error:
                log.write(
                    "WARNING",
                    "The browser's previous session could not be revoked",
                    cause=str(error),
                )

    def revoke_session(self, session: Session, client: Client) -> None:
        self._revoke(session)

    def _revoke(self, session: Session) -> None:
        """Keep the sid with the user's record, and forget those that have ended anyway."""
        with self._changing() as users:
            record = users.by_id.get(session.user.id)
            forgotten = time.time() - SESSION_SECONDS
            if record is not None and session.ends_at > forgotten:
                revoked = unforgotten(record.get(REVOKED, {}))
                revoked[session.sid] = session.ends_at
                self._replace(users, record, {REVOKED: revoked})

    def revoke_all_sessions(self, session: Session, client: Client) -> bool:
        """Raise the epoch, if it is the session's."""
        with self._changing() as users:
            record = self._record_of(users, session)
            if record is None:
                return False
            self._replace(users, record, {"epoch": next_epoch(session.user.epoch)})
            return True

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        token: IdToken,
        client: Client,
    ) -> ExternalMatch | None:
        users = self._read()
        linked = [users.by_identity[i] for i in identities if i in users.by_identity]
        self.attempts.sign_in(token, users_file.user(linked[0]) if linked else None)
        record = linked[0] if linked else users.by_key.get(key)
        if record is None:
            return None
        if not users_file.is_enabled(record):
            raise self.attempts.refused("login_disabled")
        known = users_file.identities(record)
        has_all = len(linked) == len(identities) or len(known) >= MAX_IDENTITIES
        is_told = False
        if linked and has_all:
            is_told = self._sends_mail and self.mail.tell_of_network(record, client)
            self.end_replaced(client)
        return ExternalMatch(
            credentials=users_file.credentials(record),
            is_linked=bool(linked),
            has_all=has_all,
            has_identities=any(not it.issuer.startswith(BROUGHT_ISSUERS) for it in known),
            at=time.time(),
            is_told=is_told,
        )

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
        def change(record: Record) -> Record:
            changes: Record = {
                "provider": provider,
                "identities": users_file.with_identities(record, identities),
            }
            if drops_password:
                changes |= {"password": None, "epoch": next_epoch(found.user.epoch)}
            if proves_address:
                changes[users_file.VERIFIED_AT] = record.get(users_file.VERIFIED_AT) or now_iso()
            if self._sends_mail:
                self.mail.tell_of_network(record, client)
            return changes

        changed = self._change(found, change, identities)
        if changed is not None:
            self.end_replaced(client)
        return changed

    def clean_up(self) -> bool:
        """Forget attempts and mails; the next of their user forgets revoked sessions."""
        self.attempts.clean_up()
        if self._outbox_folder.is_dir():
            self.mail.clean_up()
        return False

    def statistics(self, window: Window) -> Statistics:
        found = Statistics()
        for record in self._read().records:
            created_at = from_iso(record.get("createdAt"))
            found.count_user(window, users_file.user(record).provider, created_at)
        return found

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def _record_of(self, users: Users, session: Session) -> Record | None:
        """Find the user of a session that has not ended."""
        record = users.by_id.get(session.user.id)
        if record is None or not _goes_on(record, session.sid):
            return None
        return record if record.get("epoch", 0) == session.user.epoch else None

    def _change(
        self,
        found: Credentials,
        change: Callable[[Record], Record],
        identities: Sequence[ExternalIdentity] = (),
    ) -> User | None:
        """Change a record that is as it was found, unless an identity is somebody else's."""
        with self._changing() as users:
            record = users.by_id.get(found.user.id)
            if not users_file.is_as_found(record, found):
                return None
            if any(users.by_identity.get(i, record) is not record for i in identities):
                return None
            return users_file.user(self._replace(users, record, change(record)))

    def change_as(self, user_id: str, change: Callable[[Record], Record | None]) -> User | None:
        """Change a record as `change` says, which gives None where it is not to be changed."""
        with self._changing() as users:
            record = users.by_id.get(user_id)
            changes = change(record) if record is not None else None
            if record is None or changes is None:
                return None
            return users_file.user(self._replace(users, record, changes))

    def _replace(self, users: Users, record: Record, changes: Record) -> Record:
        gone = {name for name, value in changes.items() if value is None}
        if changes.keys() != {REVOKED}:  # A logout changes nothing that an import would bring.
            changes["updatedAt"] = now_iso()
        changed = record | changes
        changed = {name: value for name, value in changed.items() if name not in gone}
        self._write(users, record, changed)
        return changed

    @contextmanager
    def _changing(self) -> Iterator[Users]:
        """Hold the lock around one change, and give the users as they are under it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self._path, _patience()))
            except TimeoutError as error:
                raise StoreBusy(cause=str(error)) from error
            except OSError as error:
                raise self._failed("locked", error) from error
            yield self._read()

    def _read(self) -> Users:
        """Give the users of the file as it is now. Who has to wait for a reading, shares it."""
        if (known := self._known()) is not None:
            return known
        if not self._reading.acquire(timeout=_patience()):
            raise StoreBusy(cause=f"{self._path} is being read")
        try:
            return self._known() or self._read_file()
        finally:
            self._reading.release()

    def _known(self) -> Users | None:
        """Give what is known of the file if it has not changed since."""
        known = self._users
        try:
            stamp = files.stamp(os.stat(self._path, follow_symlinks=False))
        except FileNotFoundError:
            return self._nobody(known)
        except OSError as error:
            raise self._failed("read", error) from error
        if self._refused is not None and self._refused[0] == stamp:
            raise StoreUnavailable(cause=self._refused[1].cause)
        return known if stamp == known.stamp else None

    def _read_file(self) -> Users:
        known = self._users
        try:
            data, status = files.read(self._path)
        except FileNotFoundError:
            return self._nobody(known)
        except OSError as error:
            raise self._failed("read", error) from error
        stamp = files.stamp(status)
        self._users = users_file.index(None, [])  # First: memory need not hold both.
        try:
            self._users = users_file.index(stamp, users_file.parse(data))
        except InvalidJson as error:
            refusal = StoreUnavailable(cause=f"{self._path} is refused and left as it is: {error}")
            self._refused = stamp, refusal
            raise refusal from error
        return self._users

    def _nobody(self, known: Users) -> Users:
        """Give the users of no file, unless there was one with users before it was looked for.

        Whoever was in it would be told that the password is wrong, and could sign up again. That of
        a fallback may go once its users are in Postgres.
        """
        if known.stamp is not None and known.records and not self._is_fallback:
            raise StoreUnavailable(
                cause=f"{self._path} had users and is gone: put it back, or restart without it"
            )
        return users_file.index(None, [])

    def _write(self, users: Users, old: Record | None, new: Record | None) -> None:
        """Write one change to the users that were read under the lock."""
        changed = editing.changed(users, old, new)
        try:
            parts = self._edited(users, old, new) or [editing.whole(changed.records)]
            stamp = files.replace(self._path, *parts)
        except OSError as error:
            raise self._failed("written", error) from error
        if stamp is not None:
            self._users = replace(changed, stamp=stamp)

    def _edited(
        self, users: Users, old: Record | None, new: Record | None
    ) -> list[bytes | memoryview] | None:
        if users.stamp is None:
            return None
        data, status = files.read_apart(self._path)
        if files.stamp(status) != users.stamp:  # By somebody who knows no lock.
            raise StoreBusy(cause=f"{self._path} has just been changed by another program")
        return editing.edited(data, users, old, new)

    def _failed(self, verb: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(cause=f"{self._path} cannot be {verb}: {error.strerror or error}")


def unforgotten(revoked: dict[str, float]) -> dict[str, float]:
    """Leave out the sessions that have ended anyway.

    They are kept for as long again, because the clock may run ahead, and be corrected.
    """
    forgotten = time.time() - SESSION_SECONDS
    return {sid: end for sid, end in revoked.items() if end > forgotten}


def _goes_on(record: Record, sid: str) -> bool:
    """Tell whether a session was not revoked, and its user may come in."""
    return sid not in record.get(REVOKED, {}) and users_file.is_enabled(record)


def _patience() -> float:
    """Give the seconds that a request can wait for others who use the file."""
    left = request_context.current(LOCK_TIMEOUT).deadline - time.monotonic()
    return max(0.0, min(LOCK_TIMEOUT, left))
