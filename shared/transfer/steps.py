"""What every transfer has in common: its events, its transaction, and a COMMIT that is certain.

A transfer is a generator: it yields events while it works and returns its result, so that a
terminal and an HTTP answer can show the ones while they wait for the other. When it is closed
before its end, its transaction ends with it and nothing has happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.database.pool import Database
from shared.errors import CommitUnknown, StoreFault, StoreUnavailable, TransferRefused
from shared.model.users import User
from shared.store.postgres.preflight import Obstacle, obstacles
from shared.transfer import access, staging

PATIENCE = 3600.0
"""Seconds that a whole transfer may take."""
CHECK_SECONDS = 60.0
"""Seconds for finding out what became of a COMMIT."""

PROGRESS_SECONDS = 1.0
"""Between two lines of progress."""

Stage = Literal["read", "compare", "write", "verify"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is, in rows and in bytes of the source."""

    stage: Stage
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one user, where that is more than a count tells."""

    verdict: str
    reason: str
    row: int | None = None
    other_row: int | None = None
    """The row that won, of a duplicate."""
    user_id: str | None = None
    other_id: str | None = None
    """The user in Postgres who has the address."""
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is written and proven; the next step is the COMMIT."""

    ended: Sequence[User] = ()
    """Users whose sessions of that epoch it ends; not all, where they are very many."""


Event = Progress | Outcome | Ready
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """A transfer has ended with this."""

    result: Result


def to_json(event: Progress | Outcome) -> dict[str, object]:
    """Give the members of an event's JSON line."""
    members = {name: value for name, value in asdict(event).items() if value is not None}
    return {"event": type(event).__name__.lower()} | members


def run(
    transfer: Generator[Event, None, Result], *, seconds: float = PROGRESS_SECONDS
) -> Generator[Event | Done[Result], None, None]:
    """Run a transfer: give its events as they come, and its result as the last of them.

    Progress is let through once a stage, and then once in so many `seconds`.
    """
    latest, stage = 0.0, None
    with closing(_and_result(transfer)) as events:
        for event in events:
            if isinstance(event, Progress):
                now = time.monotonic()
                if event.stage == stage and now - latest < seconds:
                    continue
                latest, stage = now, event.stage
            yield event


def _and_result(
    transfer: Generator[Event, None, Result],
) -> Generator[Event | Done[Result], None, None]:
    result = yield from transfer
    yield Done(result)


def timestamp(now: float) -> str:
    """Write a time, in seconds since the Unix epoch, so that names sort by it."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def sibling_path(source: Path, kind: str, name: str, suffix: str = "") -> Path:
    """Name a file that belongs to a source: `users.<kind>.<name>.json`."""
    return source.with_name(f"{source.stem}.{kind}.{name}{suffix or source.suffix}")


def refuse(found: Sequence[Obstacle]) -> None:
    """Raise TransferRefused with the sentences of every obstacle, if there is any."""
    if found:
        raise TransferRefused("\n".join([*map(str, found), "Nothing was changed."]))


@contextmanager
def transaction(
    database: Database,
    *,
    write: access.Rights | None,
    seconds: float = PATIENCE,
    foresee: bool = False,
) -> Iterator[Connection]:
    """Give a direct connection in a transaction of `staging.begin`, undone without a COMMIT.

    It has `seconds`, but to begin no more than a request has: a database that is silent is away.
    One that writes needs the rights of `write`.
    With `foresee` it may not begin either where migrations are pending and could not be applied.
    Raises StoreUnavailable, and TransferRefused where the schema is not ready for it.
    """
    now = time.monotonic()
    with database.direct_connection(now + min(seconds, database.timeout)) as connection:
        begin(connection, write=write, foresee=foresee)
        connection.set_deadline(now + seconds)
        yield connection


def begin(connection: Connection, *, write: access.Rights | None, foresee: bool = False) -> None:
    """Begin a transaction as `transaction` does. Raises TransferRefused."""
    refuse([it for it in obstacles(connection) if foresee or not it.only_migrating])
    staging.begin(connection, write=write)


def commit(
    database: Database, connection: Connection, is_done: Callable[[Connection], bool]
) -> None:
    """Commit; where the answer is lost, ask on another connection whether it is done.

    Raises TransferRefused where it is not, and CommitUnknown where that cannot be found out.
    """
    try:
        connection.run_script("COMMIT")
    except (ConnectionLost, StoreUnavailable) as error:
        connection.close()  # Otherwise the server may keep it and its lock.
        deadline = time.monotonic() + CHECK_SECONDS
        try:
            with database.direct_connection(deadline) as fresh:
                staging.begin(fresh, write={})
                staging.wait_for_end(fresh)
                done = is_done(fresh)
        except (StoreUnavailable, StoreFault, TransferRefused) as second:  # A standby now, for one.
            raise CommitUnknown(
                "The connection was lost during the COMMIT: `status` shows the outcome."
            ) from second
        if not done:
            raise TransferRefused(
                "The connection was lost during the COMMIT; nothing was written."
            ) from error
