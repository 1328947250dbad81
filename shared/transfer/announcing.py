"""Puts on the list of revocations whose sessions a transfer has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.database.connection import Connection
from shared.database.statement import Value
from shared.model.users import User

if TYPE_CHECKING:
    from shared.revocations.redis_list import Revocations

MAX_ANNOUNCED = 10_000
"""Users of one transfer, which takes a few seconds."""


def read_ended(connection: Connection, query: str, **parameters: Value) -> list[User]:
    """Give the users whom a query finds, by id and ended epoch, and one more than are announced.

    Nothing else of them is of use to the list.
    """
    limited = f"{query} LIMIT {MAX_ANNOUNCED + 1}"
    rows = connection.execute(limited, **parameters)
    return [User(str(user_id), "", None, "local", epoch) for user_id, epoch in rows]


def announce(revocations: Revocations | None, ended: Sequence[User]) -> str:
    """Put them on the list, and say of whom this was not done, or nothing.

    Where the list's keys cannot be made there are no `revocations`.
    """
    cause: str | None = "that needs the functions' own SESSION_SECRET"
    if revocations is not None:
        cause = revocations.add_many(ended[:MAX_ANNOUNCED])
    if cause:
        return (
            "Redis was not told whose sessions have ended, so they may go on for ten minutes: "
            f"{cause}."
        )
    if len(ended) > MAX_ANNOUNCED:
        return (
            f"Sessions of more than {MAX_ANNOUNCED:,} users have ended. Redis was told of so many; "
            "the others' may go on for ten minutes."
        )
    return ""
