"""A copy of what logins need, for while Postgres is away: a file, sorted and signed.

Its first line says when it was taken, and of how many users; then there is one line a user, in the
order of the email keys' bytes; the last line is an HMAC-SHA256 of everything before it, under a key
derived from the session secret and the database's name. Nothing of it is believed before that was
checked. It is searched where it lies, so that a million users take no memory; and it is read, not
mapped, because a mapped file that somebody cuts off would end the process.

Of who is disabled the line has no password: nobody logs in, or signs up with the address.

Its age is the greater of what the clock says and of what has passed since this process took it or
first believed it, so that it is believed for no longer because the clock was set back. Of one that
was taken in the future only the process that took it knows the age; nobody else believes it.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shared import files
from shared.database.connection import Connection
from shared.database.pool import Database
from shared.database.session import LIFT_LIMITS
from shared.database.settings import DatabaseSettings
from shared.errors import StoreBusy, StoreUnavailable, StoreUnreachable
from shared.formats.strict_json import loads
from shared.model.users import USER_COLUMNS, user_from
from shared.store.contract import Credentials
from shared.store.postgres.statements import STORED_HASH, is_verified
from shared.store.settings import StoreSettings

if TYPE_CHECKING:
    from shared.database.replica import Replica

SKEW_SECONDS = 60.0
"""By which a snapshot may seem to have been taken in the future."""
FETCH_SECONDS = 60.0
"""For sorting all users, and then for each thousand of them; a server that takes longer is away."""
REFUSED_SECONDS = 5.0
"""For which a file that is not believed is not read again, unless it was changed."""

_FORMAT = 2
"""Another one where a line has other members."""
_CHUNK = 1 << 20
_DIGEST_LINE = 65
"""Bytes of the last line: a SHA-256 in hex, and the line's end."""
_LINE_MAX = 8192
"""Bytes of a line, at most. The columns are 255 characters wide; in JSON one takes up to 6 bytes,
and in an email key 12, where Unicode writes it as three."""
_LAST_DATE = 253_402_300_799.0
"""The end of the year 9999: there is no date after it."""
_FETCH_ROWS = 1000
_BEGIN = (
    f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {LIFT_LIMITS};"
    # Of an instance that is put to sleep between two requests.
    f"SET LOCAL idle_in_transaction_session_timeout = '{2 * FETCH_SECONDS:.0f}s'"
)
_USERS = f"""
DECLARE users NO SCROLL CURSOR FOR
SELECT email_key, id::text, {", ".join(USER_COLUMNS[1:])}, {is_verified("")}, {STORED_HASH}
FROM users u WHERE email_key IS NOT NULL ORDER BY email_key COLLATE "C"
"""


class NoSnapshot(StoreUnreachable):
    """There is no file."""


class _Verified(NamedTuple):
    """A file whose signature was checked, and which is read as it was then."""

    stamp: tuple[int, ...]
    taken_at: float
    descriptor: int
    first: int
    """Where the first user's line begins."""
    end: int
    """Where the last one ends."""


class _Refusal(NamedTuple):
    """A file that was read as a whole, and is not believed."""

    stamp: tuple[int, ...]
    at: float
    """By `time.monotonic()`."""
    cause: str | None


class _Change(NamedTuple):
    """When this process changed a user."""

    monotonic: float
    wall: float


class _Known(NamedTuple):
    """A file whose age is known."""

    stamp: tuple[int, ...]
    since: float
    """When it was taken, by `time.monotonic()`."""
    taken_at: float | None
    """The same by the wall clock, where another process took it: then `since` is worked out."""

    def has(self, change: _Change) -> bool:
        """Tell whether the file was taken after a change, by each clock that tells."""
        return change.monotonic < self.since and (
            self.taken_at is None or change.wall < self.taken_at
        )


class Snapshot:
    """The file of one database's users. Safe to share between threads."""

    def __init__(self, path: Path, secrets: Sequence[str], database: str) -> None:
        """Read nothing yet. The first secret signs, all verify; `database` names whose users."""
        self._path = path
        self._keys = [
            hmac.digest(secret.encode(), b"ai-coder-auth snapshot\0" + database.encode(), "sha256")
            for secret in secrets
        ]
        self._reading = threading.Lock()
        self._verified: _Verified | None = None
        self._refusal: _Refusal | None = None
        self._known: _Known | None = None
        self._invalid: dict[str, _Change] = {}
        self._had_one = False

    @classmethod
    def of(
        cls, settings: StoreSettings, database: DatabaseSettings, secrets: Sequence[str]
    ) -> Snapshot:
        """Give the snapshot that belongs to the settings. They have a database's URL."""
        assert database.url is not None
        return cls(settings.snapshot_file, secrets, database.url.place)

    def take(
        self,
        database: Database,
        now: float,
        replica: Replica | None = None,
        *,
        max_age: float = math.inf,
    ) -> int:
        """Copy every user who has an email key, in one read-only transaction, and count them.

        The replica is read, if there is one: the snapshot is as old as what it has, never older
        than `max_age` or than the snapshot that is there, or else the primary is asked. One process
        does so at a time. Raises StoreBusy where another is at it, and StoreUnavailable.
        """
        try:
            with ExitStack() as stack:
                try:
                    stack.enter_context(files.locked(self._path, 0))
                except TimeoutError as error:
                    raise StoreBusy(cause="another process is taking the snapshot") from error
                began = time.monotonic()
                count, taken_at = self._copy(database, now, replica, max_age)
                since = began - (now - taken_at)
                known = _Known(files.stamp(self._path.lstat()), since, None)
        except OSError as error:
            cause = f"the snapshot {self._path} cannot be written: {error.strerror or error}"
            raise StoreUnavailable(cause=cause) from error
        except StoreUnreachable as error:
            # Not as the requests see it: they use other connections, and perhaps another host.
            raise StoreUnavailable(cause=f"no snapshot: {error.cause}") from error
        with self._reading:
            self._had_one = True
            self._forget()  # The old file, which takes up room until its last reader closes it.
            self._know(known)
        return count

    def _copy(
        self, database: Database, now: float, replica: Replica | None, max_age: float
    ) -> tuple[int, float]:
        """Write the file, and give the number of users, and the time of which they are."""
        if replica is not None:
            from shared.database.replica import PassedOver

            # Later than the one that is there, or a user who has changed would change back.
            not_before = max(now - max_age, self.taken_at() or 0.0)
            reading = replica.reading("snapshot", not_before=not_before)
            with suppress(PassedOver), reading as (connection, as_of):
                taken_at = min(as_of, now)
                return self._write_from(connection, taken_at), taken_at
        with database.direct_connection(time.monotonic() + database.timeout) as connection:
            return self._write_from(connection, now), now

    def _write_from(self, connection: Connection, taken_at: float) -> int:
        connection.run_script(_BEGIN)
        return self.write(_rows(connection), taken_at=taken_at)

    def write(self, rows: Iterable[Sequence[Any]], *, taken_at: float) -> int:
        """Replace the file, and count the rows, which have a line's members. Raises OSError.

        The caller holds the file's lock.
        """
        signature = hmac.new(self._keys[0], digestmod="sha256")
        count = -1  # The first line is no row's.
        with files.replacing(self._path) as file:
            for line in _lines(rows, taken_at):
                count += 1
                signature.update(line)
                file.write(line)
            file.write(f"{signature.hexdigest()}\n".encode())
        return count

    def find(self, key: str, now: float, max_age: float) -> Credentials | None:
        """Find who has the email key, if what is known of them is at most `max_age` old.

        Raises NoSnapshot, and StoreUnreachable where the file must not be believed.
        """
        known, found = self._find(key, now, max_age)
        if found is None:
            return None
        _, *values, password = found
        user = user_from(values)
        change = self._invalid.get(user.id)
        if change is not None and not known.has(change):
            return None
        return Credentials(user, password)

    def has(self, key: str, now: float, max_age: float) -> bool:
        """Tell whether anybody had the email key, even if no more than that is believed.

        Raises as `find` does.
        """
        return self._find(key, now, max_age)[1] is not None

    def is_outdated(self, user_id: str) -> bool:
        """Tell whether a file of a time before Postgres must not be believed about the user."""
        return self._had_one or user_id in self._invalid

    def _find(self, key: str, now: float, max_age: float) -> tuple[_Known, list[Any] | None]:
        with self._reading:
            try:
                snapshot = self._open()
                age = now - snapshot.taken_at
                known = self._age_of(snapshot, age)
                if known is not None:
                    age = max(age, time.monotonic() - known.since)
                if known is None or age > max_age:
                    raise self._refused(f"its age is {age:.0f} s, and the limit is {max_age:.0f} s")
                return known, _search(snapshot, key)
            except FileNotFoundError:
                raise NoSnapshot(cause=f"there is no snapshot {self._path}") from None
            except OSError as error:
                raise self._refused(f"it cannot be read: {error.strerror or error}") from error
            except ValueError as error:  # Cut off or written over since it was verified.
                raise self._refused("it is being changed") from error

    def taken_at(self) -> float | None:
        """Tell when the snapshot was taken, as it says itself: nothing is verified.

        None where there is none, or another release's, which would be refused.
        """
        try:
            with files.open_regular(self._path) as file:
                header = loads(file.readline(200))
            if header["format"] != _FORMAT:
                return None
            taken_at = float(header["taken_at"])
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            return None
        return taken_at if 0 <= taken_at <= _LAST_DATE else None

    def invalidate(self, user_id: str) -> None:
        """Give the user no more from a snapshot that was taken before now."""
        with self._reading:
            self._invalid[user_id] = _Change(time.monotonic(), time.time())

    def _age_of(self, snapshot: _Verified, age: float) -> _Known | None:
        """Tell when a file was taken whose age is this by the wall clock, if that can be known."""
        if self._known is None or self._known.stamp != snapshot.stamp:
            if age < -SKEW_SECONDS:
                return None
            since = time.monotonic() - max(age, 0)
            self._know(_Known(snapshot.stamp, since, snapshot.taken_at))
        return self._known

    def _know(self, known: _Known) -> None:
        """Note when a file was taken, and forget whose change it has."""
        self._known = known
        self._invalid = {
            user_id: change for user_id, change in self._invalid.items() if not known.has(change)
        }

    def _open(self) -> _Verified:
        """Give the file as it is now, verified once.

        Raises StoreUnreachable, OSError and ValueError.
        """
        stamp = files.stamp(self._path.lstat())
        if self._verified is not None and self._verified.stamp == stamp:
            return self._verified
        self._forget()
        last, now = self._refusal, time.monotonic()
        if last is not None and last.stamp == stamp and now - last.at < REFUSED_SECONDS:
            raise StoreUnreachable(cause=last.cause)
        with files.open_regular(self._path) as file:
            try:
                self._verified = self._verify(os.dup(file.fileno()))
            except StoreUnreachable as error:
                self._refusal = _Refusal(stamp, now, error.cause)
                raise
        self._had_one = True
        return self._verified

    def _verify(self, descriptor: int) -> _Verified:
        try:
            status = os.fstat(descriptor)
            end = status.st_size - _DIGEST_LINE
            signatures = [hmac.new(key, digestmod="sha256") for key in self._keys]
            for start in range(0, end, _CHUNK):
                chunk = os.pread(descriptor, min(_CHUNK, end - start), start)
                for signature in signatures:
                    signature.update(chunk)
            given = os.pread(descriptor, _DIGEST_LINE, max(end, 0))
            expected = [f"{signature.hexdigest()}\n".encode() for signature in signatures]
            if not any(hmac.compare_digest(digest, given) for digest in expected):
                raise self._refused("its signature is not ours, or not for this database")
            first, _, _ = os.pread(descriptor, _LINE_MAX, 0).partition(b"\n")
            header = loads(first)
            if header["format"] != _FORMAT:
                raise self._refused("its format is another version's")
            return _Verified(
                files.stamp(status), header["taken_at"], descriptor, len(first) + 1, end
            )
        except BaseException:
            os.close(descriptor)
            raise

    def _forget(self) -> None:
        if self._verified is not None:
            os.close(self._verified.descriptor)
            self._verified = None

    def close(self) -> None:
        """Let go of the file."""
        with self._reading:
            self._forget()

    def _refused(self, reason: str) -> StoreUnreachable:
        return StoreUnreachable(cause=f"the snapshot {self._path} is not believed: {reason}")


def _rows(connection: Connection) -> Iterator[list[Any]]:
    """Stream the users."""
    connection.run_script(_USERS)
    connection.set_deadline(time.monotonic() + FETCH_SECONDS)
    while fetched := connection.execute(f"FETCH {_FETCH_ROWS} FROM users"):
        yield from fetched
        connection.set_deadline(time.monotonic() + FETCH_SECONDS)


def _lines(rows: Iterable[Sequence[Any]], taken_at: float) -> Iterator[bytes]:
    header = {"format": _FORMAT, "taken_at": taken_at}
    yield f"{json.dumps(header)}\n".encode()
    for row in rows:
        line = f"{json.dumps(list(row), ensure_ascii=False)}\n".encode()
        if len(line) <= _LINE_MAX:  # `_search` would lose its way in a longer one.
            yield line


def _search(snapshot: _Verified, key: str) -> list[Any] | None:
    """Find the line with the key by halving what lies between two beginnings of lines."""
    wanted = key.encode()
    low, high = snapshot.first, snapshot.end
    while low < high:
        middle = (low + high) // 2
        offset = max(low, middle - _LINE_MAX)
        block = os.pread(snapshot.descriptor, 2 * _LINE_MAX, offset)
        start = block.rfind(b"\n", 0, middle - offset) + 1
        end = block.index(b"\n", middle - offset)
        line: list[Any] = loads(block[start:end])
        here = line[0].encode()
        if here == wanted:
            return line
        if here < wanted:
            low = offset + end + 1
        else:
            high = offset + start
    return None
