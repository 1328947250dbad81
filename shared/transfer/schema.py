"""The schema's migrations on the command line: see, read and apply them by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from shared import migrations
from shared.connection import Connection
from shared.timestamps import to_iso
from shared.transfer.command import DIFFERENT, Command, Stop, action
from shared.transfer.steps import PATIENCE


@click.group()
def schema() -> None:
    """See, read and apply the migrations of the database in DATABASE_URL.

    A pooler in the URL is bypassed.
    """


@action(schema)
def status(command: Command) -> None:
    """List the migrations: applied, pending, edited or unknown.

    Edited means: after it had been applied. Unknown: applied by newer code. Changes nothing.
    """
    with _reading(command) as connection:
        found = migrations.status(connection)
    command.display.table(
        f"Migrations of {command.place}",
        [
            (item.name, item.state, to_iso(item.applied_at) if item.applied_at else "")
            for item in found
        ],
    )
    command.display.result(migrations=[asdict(item) for item in found])
    if any(item.state == "edited" for item in found):
        raise Stop(DIFFERENT)


@action(schema)
def plan(command: Command) -> None:
    """Print the SQL that `apply` would run, as a script for psql.

    It records what it applies. Changes nothing.
    """
    with _reading(command) as connection:
        sql = migrations.plan(connection, PATIENCE)
    command.display.text(sql)
    command.display.result(sql=sql)


@action(schema)
def apply(command: Command) -> None:
    """Apply what is pending, each file in one transaction.

    It may take an hour, but waits a second at most for a table that others use. A file that fails
    leaves nothing. Then keys of email addresses are corrected that SQL alone cannot make.
    """
    command.bring_schema_up_to_date()
    command.display.text("The database is up to date.\n")
    command.display.result(applied=command.migrated)


def pending(command: Command) -> list[str]:
    """Name the migrations that wait to be applied."""
    with _reading(command) as connection:
        found = migrations.status(connection)
    return [migration.name for migration in found if migration.state == "pending"]


@contextmanager
def _reading(command: Command) -> Iterator[Connection]:
    deadline = time.monotonic() + command.settings.database_timeout
    with command.database().direct_connection(deadline) as connection:
        connection.run_script("BEGIN READ ONLY")
        yield connection
