"""The schema's migrations on the command line: see, read and apply them by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import click

from shared.database import migrations
from shared.database.connection import Connection
from shared.formats.timestamps import to_iso
from shared.store.postgres import email_keys, neighbours, preflight, preparation
from shared.transfer.command import DIFFERENT, FAILED, Command, Stop, action
from shared.transfer.steps import PATIENCE, refuse


@click.group()
def schema() -> None:
    """See, read and apply the migrations of the database in DATABASE_URL.

    A pooler in the URL is bypassed.
    """


@action(schema)
def status(command: Command) -> None:
    """List the migrations: applied, pending, edited or unknown.

    Edited means: after it had been applied. Unknown: applied by newer code. What stands in the way
    of the pending ones, or of requests, is told too, and what others have on the tables. Changes
    nothing.
    """
    with _reading(command) as (connection, obstacles):
        is_ours = not any(it.object == preflight.RECORD_TABLE for it in obstacles)
        found = migrations.status(connection) if is_ours else []
        remarks = [] if obstacles else neighbours.remarks(connection.execute)
    command.display.table(
        f"Migrations of {command.place}",
        [
            (item.name, item.state, to_iso(item.applied_at) if item.applied_at else "")
            for item in found
        ],
    )
    command.display.result(
        migrations=[item._asdict() for item in found],
        obstacles=[asdict(obstacle) for obstacle in obstacles],
        remarks=[asdict(remark) for remark in remarks],
    )
    for remark in remarks:
        command.display.text(f"Note: {remark}\n")
    for obstacle in obstacles:
        command.display.error("not_ready", str(obstacle))
    if obstacles:
        raise Stop(FAILED)
    if any(item.state == "edited" for item in found):
        raise Stop(DIFFERENT)


@action(schema)
def plan(command: Command) -> None:
    """Print the SQL that `apply` would run, as a script for psql.

    It records what it applies. Changes nothing.
    """
    with _reading(command) as (connection, obstacles):
        refuse(obstacles)
        sql = preparation.plan(connection, PATIENCE)
    command.display.text(sql)
    command.display.result(sql=sql)


@action(schema)
def apply(command: Command) -> None:
    """Apply what is pending, in one transaction.

    It looks at the database first. It may take an hour, but waits a second at most for a table that
    others use. What fails leaves nothing. Keys of email addresses that are missing or wrong are
    corrected, and the users are named for whom that could not be done.
    """
    command.bring_schema_up_to_date()
    corrected = sum(len(correction.corrected) for correction in command.corrections)
    without, unlinked = [], []
    with _direct(command) as connection:
        if email_keys.has_list(connection):
            without = email_keys.users_without(connection)
            unlinked = email_keys.unlinked(connection)
    _show_keys(command, corrected, without, unlinked)
    command.display.text("The database is up to date.\n")
    command.display.result(
        applied=command.migrated,
        corrected_keys=corrected,
        without_key=[{"user_id": user_id, "other_id": other} for user_id, other in without],
        identities_unlinked=[{"user_id": user_id, "identity": it} for user_id, it in unlinked],
    )


def _show_keys(
    command: Command,
    corrected: int,
    without: Sequence[tuple[str, str]],
    unlinked: Sequence[tuple[str, str]],
) -> None:
    display = command.display
    if corrected:
        display.text(f"Users whose key was corrected: {corrected}.\n")
    display.users(
        f"Users without a key, who cannot log in, because another user has the address: "
        f"{len(without)}. See docs/DATABASE_SETUP.md, 5.",
        [f"{user_id}: {other} has it" for user_id, other in without],
    )
    display.users(
        "Users who were linked to a stranger's identity while their key was wrong: "
        f"{len(unlinked)}. The identity and the password are gone, and their sessions have "
        "ended. See "
        "docs/SECURITY.md, Wrong keys.",
        [f"{user_id}: {identity}" for user_id, identity in unlinked],
    )


def pending(command: Command) -> list[str]:
    """Name the migrations that wait to be applied.

    Raises TransferRefused where something stands in their way.
    """
    with _reading(command) as (connection, obstacles):
        refuse(obstacles)
        found = migrations.status(connection)
    return [migration.name for migration in found if migration.state == "pending"]


@contextmanager
def _reading(command: Command) -> Iterator[tuple[Connection, list[preflight.Obstacle]]]:
    """Give a transaction that only reads, and what stands in the way of others."""
    with _direct(command) as connection:
        found = preflight.obstacles(connection)
        # Of a level that standbys know, whatever the role's default is.
        connection.run_script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection, found


@contextmanager
def _direct(command: Command) -> Iterator[Connection]:
    deadline = time.monotonic() + command.settings.database.timeout
    with command.database().direct_connection(deadline) as connection:
        yield connection
