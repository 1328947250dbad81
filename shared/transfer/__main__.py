"""`python -m shared.transfer`: the move on the command line."""

from __future__ import annotations

import functools
import getpass
import os
import secrets
import signal
import socket
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import click

from shared import errors, files
from shared.config import InvalidSettings, Settings
from shared.database import Database
from shared.database_url import DatabaseUrl
from shared.store import batches, bulk
from shared.store.postgres import bring_up_to_date
from shared.timestamps import to_iso
from shared.transfer import backup, export, importing, rollback
from shared.transfer.importing import Plan
from shared.transfer.sources import Source, copy_rows, open_source
from shared.transfer.steps import PATIENCE, Event, Outcome, Ready, beside, timestamp, transaction
from shared.transfer.terminal import Display

FAILED, USAGE, REJECTED, OUTDATED, DIFFERENT, INTERRUPTED = 1, 2, 3, 4, 5, 130
EXIT_CODES = """
\b
Exit codes:
  0    done, or there was nothing to do
  1    failed: the sentence says why, and nothing was changed
  2    a wrong option, setting or users file
  3    rows cannot be brought over, so nothing was written (see --skip-invalid)
  4    the plan no longer holds, so nothing was written
  5    users differ (verify)
  130  interrupted: nothing was changed
"""
_REJECTED = {
    bulk.INVALID: "rejected: not users that can be brought over",
    bulk.DUPLICATE: "rejected: the same user as another row",
    bulk.EMAIL_TAKEN: "rejected: another user in Postgres has the email",
    bulk.ID_TAKEN: "rejected: a user with another email in Postgres has the id",
}
_THERE = {
    bulk.IDENTICAL: "in Postgres as in the source",
    bulk.KEPT: "changed in Postgres since they were imported; Postgres wins",
    bulk.ALTERED: "differ in Postgres, where nothing says that they were updated; left alone",
    bulk.DELETED: "imported before and gone from Postgres; they stay gone",
}
PLANNED = {
    bulk.NEW: "new, to be written",
    bulk.CHANGED: "changed in the source, to be brought",
} | _THERE | _REJECTED  # fmt: skip
APPLIED = {
    bulk.NEW: "new, written",
    bulk.CHANGED: "changed in the source, brought",
} | _THERE | _REJECTED  # fmt: skip
VERIFIED = {
    bulk.NEW: "missing in Postgres",
    bulk.CHANGED: "changed in the source since the import: apply again",
} | _THERE | _REJECTED  # fmt: skip
ROLLED_BACK = {
    batches.REMOVED: "removed again",
    batches.RESTORED: "as they were before",
    bulk.KEPT: "changed since the import, kept",
    batches.GONE: "were gone already",
    batches.SIGNED_UP: "signed up after the import, kept",
}


class Stop(Exception):
    """The action has said what there is to say, and ends with an exit code."""

    def __init__(self, code: int) -> None:
        """Take the exit code."""
        self.code = code


class Command:
    """What an action works with: the settings, the database, and where to show things."""

    def __init__(self, display: Display) -> None:
        """Read the settings. Raises InvalidSettings."""
        self.display = display
        # No session is made here, and a generated secret must not be left behind.
        self.settings = Settings.from_env(
            {"SESSION_SECRET": secrets.token_urlsafe(48)} | dict(os.environ)
        )

    @property
    def url(self) -> DatabaseUrl:
        """Where the users go."""
        if self.settings.database_url is None:
            raise click.UsageError("DATABASE_URL is missing: there is no database to work on.")
        return self.settings.database_url

    @property
    def place(self) -> str:
        """The database and its host, by name."""
        return f"{self.url.database} on {self.url.direct_host().host}"

    def database(self) -> Database:
        """Give the database, which nothing has connected to yet."""
        return Database(self.url, self.settings)

    def source(self, given: Path | None) -> Path:
        """Name the users file."""
        return given or self.settings.users_file

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask, unless that was answered before. Raises click.Abort for a no."""
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask on: give --yes.")
        if not yes:
            click.confirm(question, abort=True, err=True)


@click.group(epilog=EXIT_CODES)
def transfer() -> None:
    """Move the old server's users from their file to Postgres, with a proof and a way back.

    DATABASE_URL names the database, USERS_FILE the file; docs/MIGRATION.md is the runbook.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def action(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: add `--json`, and turn errors into sentences and codes."""

    @functools.wraps(function)
    def run(*, as_json: bool, **options: Any) -> None:
        display = Display(as_json=as_json)
        try:
            function(Command(display), **options)
        except Stop as stop:
            sys.exit(stop.code)
        except InvalidSettings as error:
            display.error("invalid_settings", str(error))
            sys.exit(USAGE)
        except errors.AuthError as error:
            display.error(error.code, _sentence(error))
            sys.exit(_exit_code(error))
        except errors.StoreFault as error:
            display.error("store_fault", f"The database refused a statement: {error}.")
            sys.exit(FAILED)
        except OSError as error:
            name = f": {error.filename}" if error.filename else ""
            display.error("os_error", f"{error.strerror or error}{name}. Nothing was changed.")
            sys.exit(FAILED)
        except (KeyboardInterrupt, click.Abort):
            display.error("interrupted", "Interrupted: nothing was changed.")
            sys.exit(INTERRUPTED)

    as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON lines.")
    return transfer.command(function.__name__.rstrip("_"))(as_json(run))


source_option = click.option(
    "--source", type=click.Path(path_type=Path), help="The users file, instead of USERS_FILE."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@action
@source_option
def plan(command: Command, source: Path | None) -> None:
    """Tell what apply would do, in a read-only transaction: the dry run."""
    found = _plan(command, command.source(source))
    command.display.result(**_members(found))
    if found.rejected:
        raise _rejected(found)


@action
@source_option
def backup_(command: Command, source: Path | None) -> None:
    """Copy the users file to users.backup.<UTC time>.json beside it, byte for byte."""
    path = command.source(source)
    done = command.display.run(backup.back_up(path, time.time()), length=_size(path))
    command.display.table(
        f"Backup of {path}",
        [("file", str(done.path), ""), ("bytes", done.bytes, ""), ("SHA-256", done.sha256, "")],
    )
    command.display.result(**asdict(done))


@action
@source_option
@click.option("--plan", "plan_sha256", metavar="SHA256", help="Only if this plan still holds.")
@click.option("--skip-invalid", is_flag=True, help="Bring the rest; write the rejected to a file.")
@click.option("--report/--no-report", default=True, help="Write what became of every row.")
@yes_option
def apply(
    command: Command,
    source: Path | None,
    plan_sha256: str | None,
    skip_invalid: bool,
    report: bool,
    yes: bool,
) -> None:
    """Bring what is new or changed, in one transaction that is proven before it is committed."""
    path = command.source(source)
    if not yes:
        found = _plan(command, path)
        if found.rejected and not skip_invalid:
            raise _rejected(found)
        if found.to_write:
            command.confirm(f"Write {found.to_write:,} users to {command.place}?", yes=yes)
        plan_sha256 = plan_sha256 or found.sha256
    bring_up_to_date(command.url, replace(command.settings, database_timeout=PATIENCE))
    batch_id = importing.new_batch_id(time.time())
    with ExitStack() as files_to_end, Output(path, batch_id, files_to_end) as output:
        done = command.display.run(
            importing.apply(
                command.database(),
                Source(files_to_end.enter_context(open_source(path))),
                batch_id=batch_id,
                run_by=_who(),
                plan_sha256=plan_sha256,
                skip_invalid=skip_invalid,
                report=output.write_report if report else None,
            ),
            length=_size(path),
            on_event=output.on_event,
        )
    _show(command, f"Import of {path} to {command.place}", done.plan, APPLIED)
    proof: list[tuple[str, object, str]] = [("users' SHA-256", done.plan.users_sha256, "")]
    if done.batch:
        proof = [("batch", done.batch, ""), *proof]
    proof += [("file", str(written), "") for written in output.written]
    command.display.table("Written and proven" if done.batch else "Nothing to write", proof)
    command.display.result(
        **_members(done.plan), batch=done.batch, files=[str(written) for written in output.written]
    )


@action
@source_option
def verify(command: Command, source: Path | None) -> None:
    """Compare every user of the source with Postgres, and name each one that differs."""
    path = command.source(source)
    with open_source(path) as stream:
        found = command.display.run(
            importing.verify(command.database(), Source(stream)), length=_size(path)
        )
    _show(command, f"{path} and {command.place}", found, VERIFIED)
    command.display.result(**_members(found))
    if found.differing:
        command.display.error("users_differ", f"{found.differing} users differ.")
        raise Stop(DIFFERENT)


@action
def status(command: Command) -> None:
    """Show what was imported, when, by whom, and what was rolled back."""
    with transaction(command.database(), write=False) as connection:
        users, found = batches.count_users(connection), batches.batches(connection)
    rows = [(batch.id, _written(batch), _history(batch)) for batch in found]
    command.display.table(f"{users:,} users in {command.place}; imports:", rows)
    command.display.result(users=users, batches=[asdict(batch) for batch in found])


@action
@click.argument("batch")
@yes_option
def rollback_(command: Command, batch: str, yes: bool) -> None:
    """Take a batch back; keep and name whoever has changed or signed up since."""
    command.confirm(f"Take batch {batch} back from {command.place}?", yes=yes)
    done = command.display.run(
        rollback.roll_back(command.database(), batch, run_by=_who()),
        on_event=lambda event: _ignore_interrupts() if isinstance(event, Ready) else None,
    )
    command.display.table(
        f"Rolled back {batch}",
        [(verdict, number, ROLLED_BACK[verdict]) for verdict, number in done.counts.items()],
    )
    command.display.result(**asdict(done))


@action
@click.option("--output", type=click.Path(path_type=Path), help="The new file.")
def export_(command: Command, output: Path | None) -> None:
    """Write all users to a new file in the old shape, for a return to the JSON mode."""
    path = output or beside(command.settings.users_file, "export", timestamp(time.time()))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.creating(path) as file:
        done = command.display.run(export.export(command.database(), file.write))
    command.display.table(
        f"Export of {command.place}",
        [("file", str(path), ""), ("users", done.rows, ""), ("SHA-256", done.users_sha256, "")],
    )
    command.display.result(**asdict(done), path=str(path))


class Output:
    """The files that an apply leaves beside its source, each durable before the COMMIT."""

    def __init__(self, source: Path, batch_id: str, files_to_end: ExitStack) -> None:
        """Write nothing yet."""
        self._source = source
        self._batch_id = batch_id
        self._files_to_end = files_to_end
        self._rejected = array("Q")
        self._report: BinaryIO | None = None
        self.written: list[Path] = []

    def __enter__(self) -> Output:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Leave no file that tells of what did not happen."""
        if error is not None and not isinstance(error, errors.CommitUnknown):
            for path in self.written:
                path.unlink(missing_ok=True)

    def write_report(self, lines: bytes) -> None:
        """Add to the report."""
        if self._report is None:
            self._report = self._files_to_end.enter_context(self._creating("report", ".jsonl"))
        self._report.write(lines)

    def on_event(self, event: Event) -> None:
        """Remember rejected rows, and write them before the COMMIT, which nothing interrupts."""
        if isinstance(event, Outcome) and event.verdict in bulk.REJECTED and event.row:
            self._rejected.append(event.row)
        if isinstance(event, Ready):
            if self._rejected:
                with open_source(self._source) as stream, self._creating("rejected") as file:
                    copy_rows(Source(stream), self._rejected, file.write)
            self._files_to_end.pop_all().close()
            _ignore_interrupts()

    def _creating(self, kind: str, suffix: str = "") -> AbstractContextManager[BinaryIO]:
        self.written.append(beside(self._source, kind, self._batch_id, suffix))
        return files.creating(self.written[-1])


def _plan(command: Command, path: Path) -> Plan:
    with open_source(path) as stream:
        found = command.display.run(
            importing.plan(command.database(), Source(stream)), length=_size(path)
        )
    _show(command, f"Plan: {path} to {command.place}", found, PLANNED)
    command.display.table("", [("plan", found.sha256, "")])
    return found


def _show(command: Command, title: str, found: Plan, meanings: dict[str, str]) -> None:
    always = (bulk.NEW, bulk.CHANGED, bulk.IDENTICAL)
    rows: list[tuple[str, object, str]] = [
        (verdict.replace("_", " "), number, meanings[verdict])
        for verdict, number in found.counts.items()
        if number or verdict in always
    ]
    if found.absent:
        rows.append(("absent", found.absent, "imported before, no longer in the source; they stay"))
    rows += [
        (f"“{name}”", number, "have this member, which has no column and stays behind")
        for name, number in found.unknown_members.items()
    ]
    command.display.table(f"{title} ({found.rows:,} rows)", rows)


def _members(found: Plan) -> dict[str, object]:
    return asdict(found) | {"plan": found.sha256}


def _rejected(found: Plan) -> errors.RowsRejected:
    return errors.RowsRejected(
        f"{found.rejected} of {found.rows} rows cannot be brought over: mend them, or bring the "
        "others with --skip-invalid."
    )


def _written(batch: batches.Batch) -> int:
    return batch.counts[bulk.NEW] + batch.counts[bulk.CHANGED]


def _history(batch: batches.Batch) -> str:
    told = f"users written by {batch.run_by} at {to_iso(batch.applied_at)}"
    if batch.rolled_back_at:
        told += f", rolled back by {batch.rolled_back_by} at {to_iso(batch.rolled_back_at)}"
    return told


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _ignore_interrupts() -> None:
    """Let nothing come between a COMMIT and its answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _sentence(error: errors.AuthError) -> str:
    if isinstance(error, errors.StoreUnavailable):
        return f"The database cannot do it now: {error.cause}. Nothing was changed."
    return error.sentence


def _exit_code(error: errors.AuthError) -> int:
    codes = {
        errors.RowsRejected: REJECTED,
        errors.PlanOutdated: OUTDATED,
        errors.InvalidSource: USAGE,
    }
    return codes.get(type(error), FAILED)


if __name__ == "__main__":
    transfer(prog_name="python -m shared.transfer")
