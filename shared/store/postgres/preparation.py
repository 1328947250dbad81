"""Brings a database up to date before anyone uses it: the schema, and the keys of its old rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from shared.database import migrations
from shared.database.connection import Connection
from shared.database.pool import Database
from shared.database.session import Session
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl

if TYPE_CHECKING:
    from shared.store.postgres import email_keys

_KEYS_CORRECTED = 8
"""The migration that stands for that: until it is applied, no request is served."""


def prepare(database: Database, connection: Session, deadline: float, *, apply: bool) -> None:
    """Bring the schema up to date, and with it the keys of the rows that were there before.

    Where something is pending, the database is looked at before anything is changed.
    """
    migrations.prepare(
        database,
        connection,
        deadline,
        apply=apply,
        check=_look,
        before={_KEYS_CORRECTED: _correct_keys},
        after=_correct_keys,
    )


def _correct_keys(connection: Connection, deadline: float) -> None:
    from shared.store.postgres import email_keys  # Where the schema is up to date, nobody needs it.

    email_keys.correct(connection, deadline)


def plan(connection: Connection, patience: float) -> str:
    """Write what is pending as a script for psql; see `migrations.plan`."""
    return migrations.plan(connection, patience, breaks=(_KEYS_CORRECTED,))


def bring_up_to_date(
    url: DatabaseUrl,
    settings: DatabaseSettings,
    report: Callable[[str], None] = migrations.log_applied,
    corrected: email_keys.Report | None = None,
    check: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Do by hand what an instance's first connection does, past a pooler all the way.

    Also make the keys of users whom the old server, or a restore, has added since. `report` gets
    the name of each file, and `corrected`, or else the log, what was done to keys. Nothing is
    changed where the look at the database finds an obstacle, or `check` raises. Raises
    StoreUnavailable, StoreFault.
    """
    from shared.store.postgres import email_keys

    database = Database(url, settings)
    deadline = time.monotonic() + settings.timeout
    correct = partial(email_keys.correct, report=corrected or email_keys.log_correction)
    with database.direct_connection(deadline) as connection:
        _look(connection, writing=True)
        check(connection)
        migrations.apply_pending(connection, deadline, report, before={_KEYS_CORRECTED: correct})
        email_keys.enlist_all(connection)
        correct(connection, deadline)


def _look(connection: Connection, *, writing: bool = False) -> None:
    # No request needs it where nothing is pending, and a cold start would wait for it.
    from shared.store.postgres.preflight import require_clear

    require_clear(connection, writing=writing)
