"""What every action of the command line has: settings, a database, and errors as sentences."""

from __future__ import annotations

import functools
import getpass
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from shared import errors
from shared.database.pool import Database
from shared.database.url import DatabaseUrl
from shared.environment import InvalidSettings
from shared.settings import Settings
from shared.store.postgres.email_keys import Correction
from shared.store.postgres.preparation import bring_up_to_date
from shared.transfer.steps import PATIENCE
from shared.transfer.terminal import Display

FAILED, USAGE, REJECTED, OUTDATED, DIFFERENT, UNKNOWN, QUARANTINED = 1, 2, 3, 4, 5, 6, 7
INTERRUPTED = 130
EXIT_CODES = """
\b
Exit codes:
  0    done, or there was nothing to do
  1    failed: the sentence says why, and whether anything was changed
  2    a wrong option, setting or users file
  3    rows cannot be brought over, so nothing was written (see --skip-invalid)
  4    the plan no longer holds, so nothing was written
  5    users differ (verify), or an applied migration was edited (schema status)
  6    the connection was lost at the COMMIT: ask `status` whether it was done
  7    sign-ups could not be brought, and are in the quarantine (reconcile)
  130  interrupted: nothing was changed
"""
_EXIT_CODES: dict[type[errors.AuthError], int] = {
    errors.RowsRejected: REJECTED,
    errors.PlanOutdated: OUTDATED,
    errors.InvalidSource: USAGE,
    errors.CommitUnknown: UNKNOWN,
}

source_option = click.option(
    "--source", type=click.Path(path_type=Path), help="The users file, instead of USERS_FILE."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON lines.")


class Stop(Exception):
    """The action has said what there is to say, and ends with an exit code."""

    def __init__(self, code: int) -> None:
        """Take the exit code."""
        self.code = code


class Command:
    """What an action works with."""

    def __init__(self, display: Display) -> None:
        """Read the settings. Raises InvalidSettings."""
        self.display = display
        self.migrated: list[str] = []
        self.corrections: list[Correction] = []
        """What was done to the keys of email addresses."""
        self.done = ""
        """What has been done for good, so that only telling of it can fail."""
        # No session is made here, and a generated secret must not be left behind.
        secret = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(48)
        self.settings = Settings.from_env(os.environ | {"SESSION_SECRET": secret})

    @property
    def url(self) -> DatabaseUrl:
        """Where the users go. Raises UsageError where nothing says so."""
        if self.settings.database.url is None:
            raise click.UsageError("DATABASE_URL is missing: there is no database to work on.")
        return self.settings.database.url

    @property
    def place(self) -> str:
        """The database and its host, by name."""
        return f"{self.url.database} on {self.url.direct_host().host}"

    @property
    def who(self) -> str:
        """Who runs this, for the record."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # As in a container that runs under any number.
            user = f"uid {os.getuid()}"
        return f"{user}@{socket.gethostname()}"

    def database(self) -> Database:
        """Give the database, which nothing has connected to yet."""
        return Database(self.url, self.settings.database)

    def source(self, given: Path | None) -> Path:
        """Name the users file."""
        return given or self.settings.store.users_file

    def bring_schema_up_to_date(self) -> None:
        """Apply pending migrations with a person's patience, and show the name of each."""

        def report(name: str) -> None:
            self.migrated.append(name)
            self.display.applied(name)

        settings = replace(self.settings.database, timeout=PATIENCE)
        bring_up_to_date(self.url, settings, report, self.corrections.append)

    @property
    def unchanged(self) -> str:
        """Say that nothing was changed, or what was before something went wrong."""
        if self.done:
            return f"The {self.done} was done."
        if self.migrated:
            return f"Of the schema {', '.join(self.migrated)} was applied; all else is as it was."
        return "Nothing was changed."

    def require_terminal(self, *, yes: bool) -> None:
        """Refuse to begin what would have to be asked, where nobody can be."""
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --yes.")

    def confirm(self, question: str) -> None:
        """Ask. Raises click.Abort for a no, and UsageError where there is nobody to ask."""
        self.require_terminal(yes=False)
        click.confirm(question, abort=True, err=True)

    def ignore_interrupts(self) -> None:
        """Let nothing come between a COMMIT and its answer."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def action(group: click.Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to a group of commands, with `--json`; its errors become sentences and codes.

    The function is called with a Command and its options; `_` at the end of its name is dropped.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, as_json: bool, **options: Any) -> None:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            display = Display(as_json=as_json)
            try:
                command = Command(display)
            except InvalidSettings as error:
                display.error("invalid_settings", str(error))
                sys.exit(USAGE)
            try:
                function(command, **options)
            except Stop as stop:
                sys.exit(stop.code)
            except (Exception, KeyboardInterrupt) as error:
                explained = _explain(error, command)
                if explained is None:
                    raise
                code, sentence, exit_code = explained
                display.error(code, sentence)
                display.end_output()
                sys.exit(exit_code)

        return group.command(function.__name__.rstrip("_"))(_json_option(run))

    return decorate


def _explain(error: BaseException, command: Command) -> tuple[str, str, int] | None:
    """Give the stable code, the sentence and the exit code of an error that is not a bug."""
    if isinstance(error, click.UsageError):
        return "usage", error.message, USAGE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted", f"Interrupted. {command.unchanged}", INTERRUPTED
    if isinstance(error, errors.StoreUnavailable):
        sentence = f"The database cannot do it: {error.cause}. {command.unchanged}"
        return error.code, sentence, FAILED
    if isinstance(error, errors.AuthError):
        return error.code, error.sentence, _EXIT_CODES.get(type(error), FAILED)
    if isinstance(error, errors.StoreFault):
        return "store_fault", f"The database refused: {error}. {command.unchanged}", FAILED
    if isinstance(error, OSError):
        name = f": {error.filename}" if error.filename else ""
        return "os_error", f"{error.strerror or error}{name}. {command.unchanged}", FAILED
    return None
