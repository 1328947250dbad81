"""Users in one JSON file of the old server's shape: the offline fallback.

A write happens under the file's lock and replaces it as a whole; a file that cannot be understood
is refused and left alone. Members that this system doesn't know are kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared import files
from shared.emails import email_key
from shared.errors import EmailTaken, StoreBusy, StoreDamaged, StoreUnavailable
from shared.store import Credentials
from shared.strict_json import InvalidJson, loads
from shared.timestamps import to_iso
from shared.users import User

LOCK_TIMEOUT = 10.0
"""Seconds that a writer waits for the writers before it."""

Record = dict[str, Any]

_OPTIONAL_TEXTS = ("password", "name", "provider")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Users:
    """The file as it was read, and where to find whom. The stamp tells one file from the next."""

    stamp: tuple[int, ...] | None
    records: list[Record]
    by_key: dict[str, Record]
    by_id: dict[str, Record]


class JsonFileStore:
    """Users in a file; see `shared.store.Store` for the contract."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet. A file that doesn't exist holds no users."""
        self._path = path
        self._users = _index(None, [])

    def create_user(self, user: User, password_hash: str | None) -> User:
        """Append, under the lock."""
        with self._changing() as users:
            same_key, same_id = users.by_key.get(user.email), users.by_id.get(user.id)
            if same_key or same_id:
                if same_key is same_id and same_key is not None:
                    return _user(same_key)
                raise EmailTaken
            record = {
                "id": user.id,
                "email": user.email,
                "password": password_hash,
                "name": user.name,
                "provider": user.provider,
                "createdAt": _now(),
                "updatedAt": _now(),
            }
            # The old server leaves out what a user doesn't have.
            record = {name: value for name, value in record.items() if value is not None}
            self._write([*users.records, record])
            return _user(record)

    def credentials(self, key: str) -> Credentials | None:
        """Find the record that holds the email key."""
        record = self._read().by_key.get(key)
        return Credentials(_user(record), record.get("password")) if record else None

    def user(self, user_id: str) -> User | None:
        """Find the record with the id."""
        record = self._read().by_id.get(user_id)
        return _user(record) if record else None

    def replace_password_hash(self, user_id: str, old: str, new: str) -> bool:
        """Replace under the lock, where the old hash still stands."""
        with self._changing() as users:
            record = users.by_id.get(user_id)
            if record is None or record.get("password") != old:
                return False
            changed = record | {"password": new, "updatedAt": _now()}
            self._write([changed if other is record else other for other in users.records])
            return True

    def express_session_user(self, sid: str) -> None:
        """There is none: the old server's sessions are in its database."""

    def delete_express_session(self, sid: str) -> None:
        """There is none to delete."""

    def health(self) -> None:
        """There is no database to ask."""

    def close(self) -> None:
        """Nothing stays open between two calls."""

    @contextmanager
    def _changing(self) -> Iterator[_Users]:
        """Hold the lock around one change, and give the users as they are under it."""
        try:
            with files.locked(self._path, LOCK_TIMEOUT):
                yield self._read()
        except TimeoutError as error:
            raise StoreBusy(cause=str(error)) from error
        except OSError as error:
            raise self._failed("locked", error) from error

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
        )
        if not sound:
            raise InvalidJson(f"Entry {number} is not a user.")
    return records


def _index(stamp: tuple[int, ...] | None, records: list[Record]) -> _Users:
    keyed = [(email_key(record["email"]), record) for record in records]
    # Of records that differ only in spelling the same one is found as in migration 0002.
    keyed.sort(key=lambda pair: _precedence(*pair))
    by_key: dict[str, Record] = {}
    for key, record in keyed:
        by_key.setdefault(key, record)
    return _Users(stamp, records, by_key, {record["id"]: record for record in reversed(records)})


def _precedence(key: str, record: Record) -> tuple[object, ...]:
    created = record.get("createdAt")
    return record["email"] != key, created is None, str(created), record["id"]


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _user(record: Record) -> User:
    return User(
        id=record["id"],
        email=record["email"],
        name=record.get("name"),
        provider=record.get("provider") or "local",
        epoch=record.get("epoch", 0),
    )


def _now() -> str:
    return to_iso(datetime.now(UTC))
