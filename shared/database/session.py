"""What is the same on every kind of connection: settings ahead of a statement, and what they tell.

A statement inherits nothing from those before it, because poolers hand sessions on to others.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from shared.database import sqlstate
from shared.database.statement import Statement, Value
from shared.deadlines import remaining
from shared.errors import StoreFault, StoreRefused

Row = list[Any]

STATEMENT_GRACE = 0.25
"""Seconds that the server has to say itself that a statement took too long."""
_FIX = (
    "set_config('datestyle', 'ISO', true), set_config('extra_float_digits', '1', true), "
    "set_config('row_security', 'off', true)"
)
"""What a role or a database may have set otherwise, and would change what a request is told.

It goes ahead of each statement, because poolers drop or refuse what a client says once, at
start-up. Without row security PostgreSQL refuses a statement from which a policy would hide rows.
The time zone is left alone: nothing depends on it but what shares a table with the old server.
"""
_BEFORE = Statement(
    "settings",
    f"""SELECT set_config('statement_timeout', :milliseconds, true),
    set_config('plan_cache_mode', :plan_cache_mode, true), {_FIX}""",
)
_BEFORE_IN_PATH = Statement(
    "settings_in_path", f"{_BEFORE.sql}, set_config('search_path', :search_path, true)"
)
_TOLD = ("search_path", "session_replication_role", "default_transaction_isolation")
"""What is asked for with the first statement on a connection; see `Session.learn`."""
_BEFORE_FIRST = Statement(
    "first_settings", ", ".join([_BEFORE.sql, *(f"current_setting('{name}')" for name in _TOLD)])
)
LIFT_LIMITS = f"""\
SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN (
    'statement_timeout', 'lock_timeout', 'transaction_timeout',
    'idle_in_transaction_session_timeout'
);
SELECT {_FIX}, set_config('intervalstyle', 'postgres', true),
    set_config('standard_conforming_strings', 'on', true),
    set_config('transform_null_equals', 'off', true)"""  # noqa: S608  # constants
"""Begins a long transaction: limits of a role or a database are meant for requests, and their other
settings would change what a file of SQL means."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of all that a server says in answer to one statement of a request."""


class Session(ABC):
    """A connection on which one statement at a time runs."""

    told_path: str | None = None
    """The search path that the first statement found; None before it."""
    told_isolation = ""
    """And the level of isolation of its transaction."""
    search_path: str | None = None
    """Goes ahead of each statement, where another client of a pooler may have set its own."""

    def __init__(self, wanted_path: str | None) -> None:
        """`wanted_path` is the search path that DATABASE_URL sets, if it does."""
        self._wanted_path = wanted_path
        self.used_at = time.monotonic()

    @abstractmethod
    def set_deadline(self, deadline: float) -> None:
        """Bound everything that follows by this reading of `time.monotonic()`."""

    @abstractmethod
    def execute(
        self, statement: Statement | str, by_name: bool = False, /, **parameters: Value
    ) -> list[Row]:
        """Run one statement, or its SQL alone, and give its rows."""

    @abstractmethod
    def is_stale(self) -> bool:
        """Tell whether the other end has said something unasked, such as good-bye."""

    @abstractmethod
    def close(self) -> None:
        """Close without waiting. Never raises."""

    @property
    def is_spoilt(self) -> bool:
        """Whether it must not be used again, though every answer was read."""
        return False

    @property
    def may_start(self) -> bool:
        """Whether the database may have to start while a statement waits for its answer."""
        return False

    @property
    def is_first(self) -> bool:
        """Whether nothing is known of the session yet."""
        return self.told_path is None and self.search_path is None

    def before(self, deadline: float, *, by_name: bool) -> tuple[Statement, list[bytes]]:
        """Give what goes ahead of a statement in its transaction, and its parameters.

        Raises TimeoutError past the deadline.
        """
        values = [
            b"%d" % milliseconds(deadline),
            b"force_generic_plan" if by_name else b"auto",
        ]
        if self.search_path is not None:
            return _BEFORE_IN_PATH, [*values, self.search_path.encode()]
        return (_BEFORE_FIRST if self.is_first else _BEFORE), values

    def learn(self, rows: list[Row]) -> None:
        """Keep what the first statement was told of the session, if it was.

        Raises StoreRefused for a session in which statements would mean something else, and which
        cannot be helped.
        """
        if not rows or len(rows[0]) < len(_TOLD):
            return
        path, replication_role, isolation = told = rows[0][-len(_TOLD) :]
        if not all(isinstance(text, str) for text in told):
            raise StoreRefused(cause="the server's settings are not texts")
        wanted = self._wanted_path
        if wanted is not None and _names(path) != _names(wanted):
            raise StoreRefused(
                cause=f"options=-c search_path={wanted} has no effect: it is {path} here, because "
                "a pooler ignores options. Remove them from DATABASE_URL, and set the role's own: "
                "ALTER ROLE … SET search_path = …"
            )
        if replication_role != "origin":
            raise StoreRefused(
                cause=f"session_replication_role is {replication_role}, so that no trigger and no "
                "foreign key works: ALTER ROLE … RESET session_replication_role, or ALTER DATABASE"
            )
        self.told_path, self.told_isolation = path, isolation


def milliseconds(deadline: float) -> int:
    """Count what the server may take. Raises TimeoutError past the deadline."""
    return max(1, int((remaining(deadline) - STATEMENT_GRACE) * 1000))


def as_texts(statement: Statement, parameters: dict[str, Value]) -> list[bytes | None]:
    """Write parameters as texts, in their order. Raises StoreFault where one cannot be UTF-8."""
    try:
        return [
            None if value is None else str(value).encode() for value in statement.values(parameters)
        ]
    except UnicodeEncodeError as error:
        raise StoreFault(
            sqlstate.CHARACTER_NOT_IN_REPERTOIRE, "a parameter cannot be encoded as UTF-8"
        ) from error


def _names(search_path: str) -> list[str]:
    return [name.strip().strip('"') for name in search_path.split(",")]
