"""The common part of all actions: settings, database, and errors as sentences and exit codes."""

from __future__ import annotations

import functools
import getpass
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from shared import console, errors
from shared.database.connection import Connection
from shared.database.pool import Database
from shared.database.replica import PassedOver, Replica
from shared.database.url import DatabaseUrl
from shared.environment import Environment, InvalidSettings
from shared.model.users import User
from shared.settings import Settings
from shared.store.postgres.email_keys import Correction
from shared.store.postgres.preparation import bring_up_to_date
from shared.transfer import access, announcing
from shared.transfer.steps import PATIENCE
from shared.transfer.terminal import Display
from shared.transfer.wording import Face

UNDER_MAKE = "UNDER_MAKE"
"""The variable that make sets: the reader knows its targets and ARGS, not our options."""
FAILED, USAGE, REJECTED, OUTDATED, DIFFERENT, UNKNOWN, QUARANTINED = 1, 2, 3, 4, 5, 6, 7
INTERRUPTED = 130
EXIT_CODES = """
\b
Exit codes:
  0    done, nothing to do, or you said no
  1    failed; the message says why, and whether anything changed
  2    wrong option, setting or users file
  3    rows cannot be imported, nothing was written (see --skip-invalid)
  4    the plan is outdated, nothing was written
  5    users differ (verify), or an applied migration was edited (schema status)
  6    the connection was lost during the COMMIT: `status` shows the outcome
  7    some sign-ups are in the quarantine file (reconcile)
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
    """End the action with an exit code; its output is complete."""

    def __init__(self, code: int) -> None:
        """Take the exit code."""
        self.code = code


class Declined(Exception):
    """The person who was asked said no."""


class Command:
    """The settings, database and display of an action."""

    def __init__(self, display: Display, face: Face) -> None:
        """Read the settings. Raises InvalidSettings."""
        self.display, self.face = display, face
        self.migrated: list[str] = []
        self.corrections: list[Correction] = []
        """Corrections of email keys."""
        self.changed = ""
        """A sentence about what an unfinished action has changed so far."""
        self.done = ""
        """The completed action, after which only its report can fail."""
        self.ended: Sequence[User] = ()
        """Users whose sessions it has ended."""
        # No session is made here, and a generated secret must not be left behind.
        secret = os.environ.get("SESSION_SECRET") or secrets.token_urlsafe(48)
        self.settings = Settings.from_env(os.environ | {"SESSION_SECRET": secret})
        if misspelt := Settings.misspelt(os.environ):
            raise InvalidSettings(misspelt)

    @property
    def url(self) -> DatabaseUrl:
        """The database's URL. Raises UsageError if it is missing."""
        if self.settings.database.url is None:
            raise click.UsageError(
                "DATABASE_URL is missing: set it to the database's connection string."
            )
        return self.settings.database.url

    @property
    def place(self) -> str:
        """The database and its host, by name."""
        return f"{self.url.database} on {self.url.direct_host().host}"

    @property
    def who(self) -> str:
        """The user and host that run this, for the record."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # For example in a container with an arbitrary uid.
            user = f"uid {os.getuid()}"
        return f"{user}@{socket.gethostname()}"

    def database(self) -> Database:
        """Give the database; does not connect yet."""
        return Database(self.url, self.settings.database)

    def replica(self, database: Database) -> Replica | None:
        """Give what is read instead of the database, if it is set; does not connect yet."""
        url = self.settings.database.read_url
        if url is None:
            return None
        return Replica(url, self.settings.database, database, self._tell_passed_over)

    def _tell_passed_over(self, read: str, passed_over: PassedOver) -> None:
        cause = passed_over.cause.removesuffix(".")
        self.display.notice(f"The {read} is of the primary, not of the read replica: {cause}.")

    def source(self, given: Path | None) -> Path:
        """Name the users file."""
        return given or self.settings.store.users_file

    def bring_schema_up_to_date(self, rights: access.Rights | None = None) -> None:
        """Apply pending migrations with a long timeout, and show their names.

        Raises TransferRefused where the role lacks one of the `rights` to the tables there are.
        """

        def report(name: str) -> None:
            self.migrated.append(name)
            self.display.applied(name)

        settings = self.settings.database._replace(timeout=PATIENCE)

        def check(connection: Connection) -> None:
            if rights is not None:
                access.require_writable(connection, rights)

        bring_up_to_date(self.url, settings, report, self.corrections.append, check)

    @property
    def unchanged(self) -> str:
        """A sentence about what was changed before a failure."""
        if self.done:
            return f"The {self.done} was done."
        if self.changed:
            return self.changed
        if self.migrated:
            return f"Applied {', '.join(self.migrated)}; nothing else was changed."
        return "Nothing was changed."

    def session_secrets(self) -> Sequence[str]:
        """Give the functions' own, in development those that are kept; none where nobody can."""
        own = Environment(os.environ, self.settings.application)
        if own.text("SESSION_SECRET") is not None:
            return self.settings.credentials.session_secrets
        if self.settings.web.secure:
            return ()
        return Settings.from_env().complete().credentials.session_secrets

    def announce(self) -> None:
        """Put on the list of revocations, where there is one, whose sessions have ended."""
        url = self.settings.revocations.url
        if url is None or not self.ended:
            return
        from shared.revocations.redis_list import Revocations  # It loads redis.

        secrets, name = self.session_secrets(), self.settings.application
        revocations = Revocations(url, secrets, name) if secrets else None
        try:
            self.display.remark(announcing.announce(revocations, self.ended))
        finally:
            if revocations is not None:
                revocations.close()

    def confirm(self, question: str) -> None:
        """Ask. Raises Declined for a no, click.Abort for Ctrl-C, UsageError without a terminal."""
        if not sys.stdin.isatty():
            raise click.UsageError(
                f"There is no terminal to ask on: use {self.face.option('--yes')} to go on without "
                "a question."
            )
        try:
            agreed = click.confirm(question, err=True)
        except click.Abort as abort:
            if not isinstance(abort.__context__, EOFError):
                raise
            agreed = False
            click.echo(err=True)
        if not agreed:
            raise Declined

    def ignore_interrupts(self) -> None:
        """Ignore signals between a COMMIT and its answer."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class _Action(click.Command):
    """An action, whose usage is written as the reader calls it."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if UNDER_MAKE not in os.environ:
            super().format_usage(ctx, formatter)
            return
        batch = "BATCH=… " if any(isinstance(it, click.Argument) for it in self.params) else ""
        formatter.write_usage(_called(ctx), f"{batch}[ARGS='OPTIONS']")


class Actions(click.Group):
    """The actions. Who runs make is told of make's words also where an option is wrong."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run an action, and exit with its code."""
        if UNDER_MAKE not in os.environ:
            return super().main(*args, **options)
        try:
            sys.exit(super().main(*args, **options | {"standalone_mode": False}))
        except click.UsageError as error:
            click.secho(_usage_sentence(error), fg="red", err=True)
            sys.exit(error.exit_code)


def _called(ctx: click.Context) -> str:
    names = ctx.command_path.removeprefix(ctx.find_root().command_path).strip()
    return Face(by_make=True).action(names)


def _usage_sentence(error: click.UsageError) -> str:
    message = error.format_message()  # It may end in a question: did you mean --yes?
    message += "" if message.endswith((".", "?")) else "."
    if error.ctx is None or not isinstance(error.ctx.command, _Action):
        return f"{message} `make help` lists what there is."
    called = _called(error.ctx)
    if isinstance(error, click.MissingParameter):
        return f"BATCH is missing: `{called} BATCH=…`; `make migrate-status` lists the batches."
    return f"{message} Options go into ARGS; `{called} ARGS=--help` lists them."


def action(group: click.Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to a group of commands, with `--json`; its errors become sentences and codes.

    The function is called with a Command and its options; `_` at the end of its name is dropped.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*, as_json: bool, **options: Any) -> None:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            face = Face(by_make=UNDER_MAKE in os.environ)
            display = Display(as_json=as_json, face=face)
            try:
                command = Command(display, face)
            except InvalidSettings as error:
                display.error("invalid_settings", str(error))
                sys.exit(USAGE)
            try:
                function(command, **options)
            except Stop as stop:
                sys.exit(stop.code)
            except Declined:
                display.text(f"{command.unchanged}\n")
                display.result(declined=True)
            except (Exception, KeyboardInterrupt) as error:
                explained = _explain(error, command)
                if explained is None:
                    raise
                code, sentence, exit_code = explained
                display.error(code, sentence)
                console.discard_output()
                sys.exit(exit_code)

        name = function.__name__.rstrip("_")
        return group.command(name, cls=_Action)(_json_option(run))

    return decorate


def _explain(error: BaseException, command: Command) -> tuple[str, str, int] | None:
    """Give the stable code, the sentence and the exit code of an error that is not a bug."""
    if isinstance(error, click.UsageError):
        return "usage", error.message, USAGE
    if isinstance(error, InvalidSettings):
        return "invalid_settings", str(error), USAGE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted", f"Interrupted. {command.unchanged}", INTERRUPTED
    if isinstance(error, errors.StoreUnavailable):
        return error.code, command.face.translate(_about_store(error, command)), FAILED
    if isinstance(error, errors.AuthError):
        sentence = command.face.translate(error.sentence)
        return error.code, sentence, _EXIT_CODES.get(type(error), FAILED)
    if isinstance(error, errors.StoreFault):
        sentence = f"The database {command.place} refused a statement: {error}."
        return "store_fault", f"{sentence} {command.unchanged}", FAILED
    if isinstance(error, OSError):
        name = f": {error.filename}" if error.filename else ""
        return "os_error", f"{error.strerror or error}{name}. {command.unchanged}", FAILED
    return None


def _about_store(error: errors.StoreUnavailable, command: Command) -> str:
    """Say what the database does not do, or the users file: the cause alone need not name it."""
    cause = (error.cause or "no reason is known").rstrip(".")  # Some are sentences.
    if not isinstance(error, errors.StoreUnreachable | errors.StoreRefused):
        return f"Cannot go on: {cause}. {command.unchanged}"
    return (
        f"Database error: {cause} ({command.place}). `{command.face.doctor}` looks for the reason. "
        f"{command.unchanged}"
    )
