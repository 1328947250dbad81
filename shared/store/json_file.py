"""Users in one JSON file of the old server's shape: the offline fallback.

A write happens under the file's lock and replaces it as a whole; a file that cannot be understood
is refused and left alone. Members that this system doesn't know are kept. What the old server did
not know is kept with each user: `epoch`, `identities`, `revokedSessions`, each with its end, and,
of who signed up while Postgres was away, `pending`: the id of the operation that brings them there.
Attempts are counted in memory, and the audit is the log's alone.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared import files, scope
from shared.config import Settings
from shared.emails import email_key
from shared.errors import EmailTaken, StoreBusy, StoreDamaged, StoreUnavailable
from shared.store import Account, Attempt, Credentials, ExternalMatch, attempts
from shared.strict_json import InvalidJson, loads
from shared.throttling import Pseudonyms
from shared.timestamps import now_iso
from shared.users import ExternalIdentity, User

if TYPE_CHECKING:
    from shared.clients import Client
    from shared.tokens import Session

LOCK_TIMEOUT = 10.0
"""Seconds that a writer waits for the writers before it, if its request has as many left."""

Record = dict[str, Any]

_REVOKED = "revokedSessions"
_PENDING = "pending"
_OPTIONAL_TEXTS = ("password", "name", "provider")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Users:
    """The file as it was read, and where to find whom. The stamp tells one file from the next."""

    stamp: tuple[int, ...] | None
    records: list[Record]
    by_key: dict[str, Record]
    by_id: dict[str, Record]
    by_identity: dict[ExternalIdentity, Record]
    pending: list[Record]


class JsonFileStore:
    """Users in a file; see `shared.store.Store` for the contract."""

    def __init__(self, settings: Settings, *, is_fallback: bool = False) -> None:
        """Read nothing yet. A file that doesn't exist holds no users.

        Of a fallback, everyone who signs up is pending until Postgres has them.
        """
        self._is_fallback = is_fallback
        self._path = settings.users_file
        self._users = _index(None, [])
        pseudonyms = Pseudonyms(settings.session_secrets)
        self.attempts = attempts.MemoryAttempts(settings.limits, pseudonyms)

    def reserve_sign_up(self, client: Client, now: float) -> None:
        """Count in memory."""
        self.attempts.sign_up(client, now)

    def create_user(
        self,
        user: User,
        password_hash: str | None,
        identities: Sequence[ExternalIdentity] = (),
        *,
        client: Client | None = None,
    ) -> User:
        """Append, under the lock."""
        with self._changing() as users:
            same_key, same_id = users.by_key.get(user.email), users.by_id.get(user.id)
            if same_key or same_id:
                if same_key is same_id and same_key is not None:
                    return _user(same_key)
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
                "identities": _with(None, identities),
            }
            if self._is_fallback:
                record[_PENDING] = {"operation": str(uuid.uuid4()), "at": now_iso()}
            # The old server leaves out what a user doesn't have.
            record = {name: value for name, value in record.items() if value not in (None, [])}
            self._write([*users.records, record])
            return _user(record)

    def pending(self) -> list[str]:
        """Give the operations that Postgres lacks, in the order of the sign-ups."""
        return [record[_PENDING]["operation"] for record in self._read().pending]

    def find_pending(self, *, key: str = "", user_id: str = "") -> User | None:
        """Find a pending user by the email key or by the id."""
        users = self._read()
        record = users.by_key.get(key) or users.by_id.get(user_id)
        return _user(record) if record and _PENDING in record else None

    def settle(self, operation: str, play: Callable[[Record], object]) -> bool:
        """Have `play` bring a pending user where they belong, and then leave the record out.

        Nobody else changes the file meanwhile. Tells whether there was such an operation. What
        `play` raises leaves everything as it is.
        """
        with self._changing() as users:
            for record in users.pending:
                if record[_PENDING]["operation"] == operation:
                    play(record)
                    self._write([other for other in users.records if other is not record])
                    return True
            return False

    def begin_login(self, key: str, client: Client, now: float) -> Attempt:
        """Count in memory, and find the record that holds the email key."""
        return self.attempts.begin("login", self.credentials(key), key, client, now)

    def begin_reauthentication(self, session: Session, client: Client, now: float) -> Attempt:
        """Count as a login, and find the record of the session."""
        record = self._going_on(self._read(), session)
        found = _credentials(record) if record else None
        key = email_key(session.user.email)
        return self.attempts.begin("reauthentication", found, key, client, now)

    def credentials(self, key: str) -> Credentials | None:
        """Find the record that holds the email key."""
        record = self._read().by_key.get(key)
        return _credentials(record) if record else None

    def end_login(self, attempt: Attempt, now: float) -> None:
        """Fill up the counts."""
        self.attempts.succeed(attempt.keys, now)

    def change_password(
        self, attempt: Attempt, found: Credentials, new: str, now: float
    ) -> User | None:
        """Replace the record where it is as it was found."""
        self.end_login(attempt, now)
        epoch = found.user.epoch + 1
        return self._change(found, lambda _: {"password": new, "epoch": epoch})

    def delete_user(self, attempt: Attempt, found: Credentials, now: float) -> bool:
        """Leave the record out where it is as it was found."""
        self.end_login(attempt, now)
        with self._changing() as users:
            record = users.by_id.get(found.user.id)
            if record is None or _credentials(record) != found:
                return False
            self._write([other for other in users.records if other is not record])
            return True

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Replace under the lock, where the old hash still stands."""
        with self._changing() as users:
            record = users.by_id.get(user_id)
            if record is None or record.get("password") != old:
                return False
            self._replace(users, record, {"password": new})
            return True

    def user(self, user_id: str, *, sid: str = "") -> User | None:
        """Find the record with the id."""
        record = self._read().by_id.get(user_id)
        return _user(record) if record and sid not in record.get(_REVOKED, {}) else None

    def account(self, user_id: str, *, sid: str) -> Account | None:
        """Find the record with the id; there are no events."""
        record = self._read().by_id.get(user_id)
        if record is None or sid in record.get(_REVOKED, {}):
            return None
        return Account(
            user=_user(record),
            created_at=record.get("createdAt"),
            updated_at=record.get("updatedAt"),
            has_password=record.get("password") is not None,
            identities=_identities(record),
            events=[],
        )

    def revoke_session(self, session: Session, client: Client, now: float) -> None:
        """Keep the sid with the user's record, and forget those that have ended anyway."""
        with self._changing() as users:
            record = users.by_id.get(session.user.id)
            if record is not None:
                revoked = {s: end for s, end in record.get(_REVOKED, {}).items() if end > now}
                revoked[session.sid] = session.ends_at
                self._replace(users, record, {_REVOKED: revoked})

    def revoke_all_sessions(self, session: Session, client: Client, now: float) -> bool:
        """Raise the epoch, if it is the session's."""
        with self._changing() as users:
            record = self._going_on(users, session)
            if record is None:
                return False
            self._replace(users, record, {"epoch": session.user.epoch + 1})
            return True

    def find_external(
        self,
        identities: Sequence[ExternalIdentity],
        key: str,
        client: Client,
        now: float,
    ) -> ExternalMatch | None:
        """Look for the identities first, and for the address only where nobody is there."""
        users = self._read()
        linked = [users.by_identity[i] for i in identities if i in users.by_identity]
        record = linked[0] if linked else users.by_key.get(key)
        if record is None:
            return None
        return ExternalMatch(
            credentials=_credentials(record),
            is_linked=bool(linked),
            has_all=len(linked) == len(identities),
            has_identities=bool(_identities(record)),
        )

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
        """Replace the record where it is as it was found."""

        def change(record: Record) -> Record:
            changes: Record = {"provider": provider, "identities": _with(record, identities)}
            if drops_password:
                changes |= {"password": None, "epoch": found.user.epoch + 1}
            return changes

        return self._change(found, change, identities)

    def clean_up(self, now: float) -> bool:
        """Forget attempts; revoked sessions are forgotten by the next one of their user."""
        self.attempts.clean_up(now)
        return False

    def express_session_user(self, sid: str) -> None:
        """There is none: the old server's sessions are in its database."""

    def delete_express_session(self, sid: str) -> None:
        """There is none to delete."""

    def health(self) -> None:
        """There is no database to ask."""

    def fallback(self) -> None:
        """There is nothing to fall back from."""

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def _going_on(self, users: _Users, session: Session) -> Record | None:
        record = users.by_id.get(session.user.id)
        if record is None or session.sid in record.get(_REVOKED, {}):
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
            if record is None or _credentials(record) != found:
                return None
            if any(users.by_identity.get(i, record) is not record for i in identities):
                return None
            return _user(self._replace(users, record, change(record)))

    def _replace(self, users: _Users, record: Record, changes: Record) -> Record:
        gone = {name for name, value in changes.items() if value is None}
        if changes.keys() != {_REVOKED}:  # A logout changes nothing that an import would bring.
            changes["updatedAt"] = now_iso()
        changed = record | changes
        changed = {name: value for name, value in changed.items() if name not in gone}
        self._write([changed if other is record else other for other in users.records])
        return changed

    @contextmanager
    def _changing(self) -> Iterator[_Users]:
        """Hold the lock around one change, and give the users as they are under it."""
        left = scope.current(LOCK_TIMEOUT).deadline - time.monotonic()
        with ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self._path, min(LOCK_TIMEOUT, left)))
            except TimeoutError as error:
                raise StoreBusy(cause=str(error)) from error
            except OSError as error:
                raise self._failed("locked", error) from error
            yield self._read()

    def _read(self) -> _Users:
        try:
            if _stamp(os.stat(self._path, follow_symlinks=False)) == self._users.stamp:
                return self._users
            data, status = files.read(self._path)
        except FileNotFoundError:
            return _index(None, [])
        except OSError as error:
            raise self._failed("read", error) from error
        try:
            users = _index(_stamp(status), _records(data))
        except InvalidJson as error:
            raise StoreDamaged(
                cause=f"{self._path} is refused and left as it is: {error}"
            ) from error
        self._users = users
        return users

    def _write(self, records: list[Record]) -> None:
        text = json.dumps(records, indent=2, ensure_ascii=False)
        # As JSON.stringify does: a lone surrogate has no UTF-8, but it has an escape.
        text = _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        try:
            files.replace(self._path, text.encode())
        except OSError as error:
            raise self._failed("written", error) from error

    def _failed(self, verb: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(cause=f"{self._path} cannot be {verb}: {error.strerror or error}")


def _records(data: bytes) -> list[Record]:
    """Check that the bytes are users as the old server writes them. Raises InvalidJson."""
    records = loads(data)
    if not isinstance(records, list):
        raise InvalidJson("It is not an array of users.")
    for number, record in enumerate(records, 1):
        sound = (
            isinstance(record, dict)
            and all(isinstance(record.get(name), str) for name in ("id", "email"))
            and all(isinstance(record.get(name), str | None) for name in _OPTIONAL_TEXTS)
            and type(record.get("epoch", 0)) is int
            and _are_identities(record.get("identities", []))
            and _are_ends(record.get(_REVOKED, {}))
            and (_PENDING not in record or _is_operation(record[_PENDING]))
        )
        if not sound:
            raise InvalidJson(f"Entry {number} is not a user.")
    return records


def _are_identities(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and set(entry) == {"issuer", "subject"}
        and all(isinstance(text, str) for text in entry.values())
        for entry in value
    )


def _are_ends(value: object) -> bool:
    return isinstance(value, dict) and all(type(end) in (int, float) for end in value.values())


def _is_operation(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"operation", "at"}
        and all(isinstance(text, str) for text in value.values())
        and _UUID.fullmatch(value["operation"]) is not None
    )


def _index(stamp: tuple[int, ...] | None, records: list[Record]) -> _Users:
    keyed = [(email_key(record["email"]), record) for record in records]
    # Of records that differ only in spelling the same one is found as in migration 0002.
    keyed.sort(key=lambda pair: _precedence(*pair))
    by_key: dict[str, Record] = {}
    for key, record in keyed:
        by_key.setdefault(key, record)
    return _Users(
        stamp,
        records,
        by_key,
        by_id={record["id"]: record for record in reversed(records)},
        by_identity={
            identity: record for record in reversed(records) for identity in _identities(record)
        },
        pending=[record for record in records if _PENDING in record],
    )


def _precedence(key: str, record: Record) -> tuple[object, ...]:
    created = record.get("createdAt")
    return record["email"] != key, created is None, str(created), record["id"]


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _identities(record: Record) -> list[ExternalIdentity]:
    return [ExternalIdentity(**entry) for entry in record.get("identities", [])]


def _with(record: Record | None, more: Sequence[ExternalIdentity]) -> list[dict[str, str]]:
    found = _identities(record) if record else []
    found += [identity for identity in more if identity not in found]
    return [{"issuer": identity.issuer, "subject": identity.subject} for identity in found]


def _credentials(record: Record) -> Credentials:
    return Credentials(_user(record), record.get("password"))


def _user(record: Record) -> User:
    return User(
        id=record["id"],
        email=record["email"],
        name=record.get("name"),
        provider=record.get("provider") or "local",
        epoch=record.get("epoch", 0),
    )
