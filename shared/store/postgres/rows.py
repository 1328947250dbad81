"""What the columns of an answer say: a user, and JSON that was made of several rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.database.session import Row
from shared.errors import StoreRefused
from shared.formats.strict_json import InvalidJson, loads
from shared.model.users import USER_COLUMNS, User, user_from

USER_LENGTH = len(USER_COLUMNS) + 1
"""Columns of a row that are a user; see `statements.USER`."""


def read_user(row: Row) -> User:
    """Give the user whom a row's first columns are."""
    return user_from(row[:USER_LENGTH])


def only(rows: list[Row]) -> Row:
    """Give the row of a statement that counts, and so always has one. Raises StoreRefused."""
    if len(rows) != 1:
        raise kept_out("auth_attempts")
    return rows[0]


def kept_out(table: str, triggers: Sequence[str] = ()) -> StoreRefused:
    """Make the error for a row that was written and did not come; `triggers` may be why."""
    cause = f"no row came into {table}: {_of_others(triggers)} keeps it out"
    return StoreRefused(cause=cause, table=table)


def kept(table: str, triggers: Sequence[str]) -> StoreRefused:
    """Make the error for a row that was to be changed or deleted and stayed as it was."""
    cause = f"the row stays as it was in {table}: {_of_others(triggers)} keeps it"
    return StoreRefused(cause=cause, table=table)


def changed_by_others(triggers: Sequence[str] = ()) -> StoreRefused:
    """Make the error for a row of users that was written and came with other values."""
    cause = f"{_of_others(triggers)} puts other values into users than are written"
    return StoreRefused(cause=cause, table="users")


def _of_others(triggers: Sequence[str]) -> str:
    return f"the trigger {' or '.join(triggers)}" if triggers else "a trigger or rule of another's"


def parse_json(column: str | None) -> Any:
    """Parse what `json_agg` and the like gave; NULL, which they give of no rows, is an empty list.

    Raises StoreRefused where that was no JSON of ours, as only a server that lies gives it.
    """
    try:
        return [] if column is None else loads(column)
    except InvalidJson as error:
        raise StoreRefused(cause=f"the server gave a column that is no JSON: {error}") from error
