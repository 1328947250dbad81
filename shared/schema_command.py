"""`python -m shared.schema_command`: see, read and apply the schema's migrations by hand."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import click

from shared import migrations
from shared.config import InvalidSettings, Settings
from shared.connection import Connection
from shared.database import Database
from shared.database_url import DatabaseUrl
from shared.errors import StoreFault, StoreUnavailable
from shared.store.postgres import bring_up_to_date
from shared.timestamps import to_iso

PATIENCE = 3600.0
"""Seconds that applying by hand may take."""
EDITED = 4
"""The exit code of `status` where an applied file was edited."""

_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


class _WrongSettings(click.ClickException):
    exit_code = 2


@click.group()
def schema() -> None:
    """See, read and apply the migrations of the database in DATABASE_URL.

    A pooler in the URL is bypassed. Exit codes: 0 fine, 1 failure, 2 wrong usage or settings.
    """


@schema.command()
@_json_option
def status(as_json: bool) -> None:
    """List the migrations: applied, pending, edited or unknown.

    Edited means: after it had been applied. Unknown: applied by newer code. Changes nothing.
    Exit code 4 where one was edited, 0 also where some are pending.
    """
    with _reading() as connection:
        found = migrations.status(connection)
    rows = [
        (item.name, item.state, to_iso(item.applied_at) if item.applied_at else None)
        for item in found
    ]
    if as_json:
        names = ("name", "state", "applied_at")
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        width = max(len(name) for name, _, _ in rows)
        for name, state, applied_at in rows:
            click.echo(f"{name:{width}}  {state:7}  {applied_at or ''}".rstrip())
    if any(item.state == "edited" for item in found):
        sys.exit(EDITED)


@schema.command()
@_json_option
def plan(as_json: bool) -> None:
    """Print the SQL that `apply` would run, as a script for psql.

    It records what it applies. Changes nothing.
    """
    with _reading() as connection:
        sql = migrations.plan(connection, PATIENCE)
        pending = [item.name for item in migrations.status(connection) if item.state == "pending"]
    if as_json:
        click.echo(json.dumps({"pending": pending, "sql": sql}))
    else:
        click.echo(sql, nl=False)


@schema.command()
@_json_option
def apply(as_json: bool) -> None:
    """Apply what is pending, each file in one transaction.

    It may take an hour, but waits a second at most for a table that others use. A file that fails
    leaves nothing. Then keys of email addresses are corrected that SQL alone cannot make.
    With --json one line for each file that was applied.
    """

    def report(name: str) -> None:
        click.echo(json.dumps({"applied": name}) if as_json else f"Applied {name}.")

    url, settings = _settings()
    with _failures():
        bring_up_to_date(url, replace(settings, database_timeout=PATIENCE), report)
    if not as_json:
        click.echo("The database is up to date.")


def _settings() -> tuple[DatabaseUrl, Settings]:
    try:
        settings = Settings.from_env()
    except InvalidSettings as error:
        raise _WrongSettings(str(error)) from error
    if settings.database_url is None:
        raise _WrongSettings("DATABASE_URL is missing: there is no database to migrate.")
    return settings.database_url, settings


@contextmanager
def _reading() -> Iterator[Connection]:
    url, settings = _settings()
    deadline = time.monotonic() + settings.database_timeout
    with _failures(), Database(url, settings).direct_connection(deadline) as connection:
        connection.run_script("BEGIN READ ONLY")
        yield connection


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, StoreFault) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    schema()
