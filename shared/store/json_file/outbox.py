"""The outbox of the JSON store: a folder beside the users file, one file a mail.

A mail is written before the change that it tells of, under the lock of the users file: whoever is
killed in between has sent a mail too many, and its token is for a state that the user never left.
For the same reason mails of a user who is deleted are left out after the deletion.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared import files
from shared.errors import StoreBusy, StoreUnavailable
from shared.formats.strict_json import loads
from shared.model.mails import LEASE_SECONDS, MAX_AGE, Mail, OutboxStatus

_LOCK_SECONDS = 3.0
_MEMBERS = {
    "id": (str,),
    "kind": (str,),
    "recipient": (str,),
    "user_id": (str,),
    "epoch": (int,),
    "email_digest": (str,),
    "locale": (str, type(None)),
    "asked_from": (str, type(None)),
    "created_at": (int, float),
    "tries": (int,),
    "due_at": (int, float),
}
_FIELDS = tuple(name for name in _MEMBERS if name != "due_at")


class OutboxFolder:
    """Mails to be sent, in files. Safe to share between threads and processes."""

    def __init__(self, path: Path) -> None:
        """Make nothing yet."""
        self._path = path

    def put(self, mail: Mail) -> None:
        """Write a mail. Raises StoreUnavailable."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            row = {name: getattr(mail, name) for name in _FIELDS}
            self._write(row | {"due_at": mail.created_at})
        except OSError as error:
            raise self._failed("written", error) from error

    def lease(self, limit: int) -> list[Mail]:
        """Take mails that are due, the oldest first, and forget those for nobody.

        Whoever is killed with one loses it later.
        """
        now = time.time()
        leased, due = [], []
        with self._locked():
            self._forget_unfinished(now)
            for row in self._rows():
                if not row["recipient"]:
                    self._file(row["id"]).unlink(missing_ok=True)
                elif row["due_at"] <= now:
                    due.append(row)
            for row in sorted(due, key=lambda row: float(row["due_at"]))[:limit]:
                self._write(row | {"due_at": now + LEASE_SECONDS})
                is_too_old = now - row["created_at"] >= MAX_AGE
                leased.append(Mail(**{name: row[name] for name in _FIELDS}, is_too_old=is_too_old))
        return leased

    def delivered(self, mail_id: str) -> None:
        """Forget a mail that was sent, or that never will be."""
        with self._locked():
            self._file(mail_id).unlink(missing_ok=True)

    def postpone(self, mail_id: str, seconds: float) -> None:
        """Try again later, and count the try."""
        with self._locked():
            for row in self._rows():
                if row["id"] == mail_id:
                    self._write(row | {"due_at": time.time() + seconds, "tries": row["tries"] + 1})

    def status(self) -> OutboxStatus:
        """Count what waits for somebody."""
        try:
            created = [row["created_at"] for row in self._rows() if row["recipient"]]
        except OSError as error:
            raise self._failed("read", error) from error
        return OutboxStatus(len(created), max(0.0, time.time() - min(created)) if created else 0.0)

    def clean_up(self) -> None:
        """Forget what has been due for two days: nobody delivers it."""
        with self._locked():
            for row in self._rows():
                if time.time() - row["due_at"] >= 2 * MAX_AGE:
                    self._file(row["id"]).unlink(missing_ok=True)

    def forget(self, user_id: str) -> None:
        """Leave out what was to be sent to a user, but for the mail that tells of the deletion."""
        with self._locked():
            for row in self._rows():
                if row["user_id"] == user_id and row["kind"] != "account_deleted":
                    self._file(row["id"]).unlink(missing_ok=True)

    def _forget_unfinished(self, now: float) -> None:
        """Delete what somebody was writing who was killed: nobody was told that it is sent."""
        for path in self._path.glob("*.tmp"):
            with suppress(OSError):
                if path.lstat().st_mtime < now - LEASE_SECONDS:
                    path.unlink()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Read each mail; what is none is left alone."""
        for path in sorted(self._path.glob("*.json")) if self._path.is_dir() else ():
            with suppress(OSError, ValueError):
                row = loads(files.read(path)[0])
                is_mail = isinstance(row, dict) and all(
                    type(row.get(name)) in kinds for name, kinds in _MEMBERS.items()
                )
                if is_mail and self._file(row["id"]) == path:  # And no copy of one.
                    yield row

    def _write(self, row: Mapping[str, Any]) -> None:
        files.replace(self._file(str(row["id"])), json.dumps(row).encode())

    def _file(self, mail_id: str) -> Path:
        return self._path / f"{uuid.UUID(mail_id)}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            if not self._path.is_dir():
                yield
                return
            with files.locked(self._path / "outbox", _LOCK_SECONDS):
                yield
        except TimeoutError as error:
            raise StoreBusy(cause=str(error)) from error
        except OSError as error:
            raise self._failed("changed", error) from error

    def _failed(self, verb: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(cause=f"{self._path} cannot be {verb}: {error.strerror or error}")
