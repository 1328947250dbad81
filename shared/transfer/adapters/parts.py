"""What belongs to a user and stands elsewhere: kept by a key, on disk, until the user comes.

In a database of SQLite's without a name: it has 2 MiB of memory, then a file without a name, which
ends with it. So a dry run needs no right in Postgres that reading does not, and a join can be tried
without a server.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from typing import Any

from shared.formats.strict_json import InvalidJson, loads
from shared.model.user_record import InvalidRow
from shared.transfer.adapters.values import as_json

_NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class Parts:
    """Parts of users; each is taken once. Raises OSError where the disk is full."""

    def __init__(self) -> None:
        """Begin without any."""
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; CREATE TABLE parts"
            " (kind TEXT NOT NULL, owner TEXT NOT NULL, number INTEGER NOT NULL, part TEXT);"
            "CREATE INDEX owners ON parts (owner); BEGIN"
        )

    def close(self) -> None:
        """Forget them."""
        self._database.close()

    def add(self, kind: str, owner: str, number: int, part: dict[str, Any]) -> None:
        """Keep a part of the user with the key `owner`; `number` is its row. Raises InvalidRow."""
        text = as_json(part)
        self._execute("INSERT INTO parts VALUES (?, ?, ?, ?)", kind, _storable(owner), number, text)

    def take(self, owner: str) -> dict[str, list[dict[str, Any]]]:
        """Give the parts of a user by kind, in their order. Raises InvalidRow."""
        found: dict[str, list[dict[str, Any]]] = {}
        key = _storable(owner)
        statement = "SELECT kind, part FROM parts WHERE owner = ? ORDER BY number"
        for kind, part in self._execute(statement, key):
            try:
                found.setdefault(kind, []).append(loads(part))
            except InvalidJson as problem:
                raise InvalidRow(f"Its {kind} cannot be read. {problem}") from None
        if found:
            self._execute("DELETE FROM parts WHERE owner = ?", key)
        return found

    def left(self) -> Iterator[tuple[str, int]]:
        """Give kind and row of those that no user has taken."""
        yield from self._execute("SELECT kind, number FROM parts ORDER BY kind, number")

    def _execute(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _NO_SPACE:
                raise
            raise OSError(errno.ENOSPC, "There is no space left in the folder TMPDIR") from error


def _storable(key: str) -> str:
    return key.encode(errors="backslashreplace").decode()
