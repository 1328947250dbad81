"""The actions of the command line, `python -m shared.transfer`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from shared import errors, files
from shared.formats.counts import count
from shared.formats.timestamps import to_iso
from shared.store.json_file.store import JsonFileStore
from shared.store.snapshot import Snapshot
from shared.transfer import (
    access,
    backup,
    export,
    importing,
    inviting,
    pending_sign_ups,
    reconciling,
    rollback,
    schema,
    staging,
    status,
)
from shared.transfer.command import (
    DIFFERENT,
    EXIT_CODES,
    FAILED,
    QUARANTINED,
    Actions,
    Command,
    Stop,
    action,
    source_option,
    yes_option,
)
from shared.transfer.importing import Applied, Plan
from shared.transfer.named_rows import naming
from shared.transfer.origin_options import Given, origin_options
from shared.transfer.outputs import Outputs
from shared.transfer.reconciling import Reconciled
from shared.transfer.sources import Opened
from shared.transfer.steps import (
    Event,
    Outcome,
    Ready,
    Result,
    sibling_path,
    timestamp,
    to_json,
)
from shared.transfer.terminal import SHOWN_OUTCOMES
from shared.transfer.wording import (
    APPLIED,
    PLANNED,
    RECONCILED,
    ROLLED_BACK,
    TO_ROLL_BACK,
    VERIFIED,
    agreement,
    batch_row,
    following,
    plan_rows,
    question,
    question_before_rollback,
)

_primary_option = click.option(
    "--primary", is_flag=True, help="Read the primary, even where DATABASE_READ_URL is set."
)


@click.group(cls=Actions, epilog=EXIT_CODES)
def transfer() -> None:
    """Migrate the old server's users from their file to Postgres, verified and reversible.

    DATABASE_URL names the database, USERS_FILE the file; docs/MIGRATION.md is the runbook.
    """


@action(transfer)
@source_option
@origin_options
def plan(command: Command, source: Path | None, given: Given) -> None:
    """Show what apply would do, in a read-only transaction (dry run)."""
    path = command.source(source)
    given.check(command, path)
    found, migrations = _plan(command, path, given)
    given.remind(command)
    command.display.result(**found.to_json(), migrations=migrations)
    _refuse_rejected(command, found)
    command.display.text(_after_plan(command, found, migrations))


@action(transfer)
@source_option
def backup_(command: Command, source: Path | None) -> None:
    """Copy the users file to users.backup.<UTC time>.json beside it, byte for byte."""
    path = command.source(source)
    done = command.display.run(backup.back_up(path, time.time()), length=_size(path))
    command.done = "backup"
    command.display.table(
        f"Backup of {path}",
        [("file", str(done.path), ""), ("bytes", done.bytes, ""), ("SHA-256", done.sha256, "")],
    )
    command.display.result(**asdict(done))


@action(transfer)
@source_option
@origin_options
@click.option(
    "--plan", "plan_sha256", metavar="SHA256", help="Apply only if this plan is still valid."
)
@click.option(
    "--skip-invalid", is_flag=True, help="Import the others; write rejected rows to a file."
)
@click.option(
    "--report/--no-report", default=True, help="Write the outcome of every row to a file."
)
@click.option(
    "--addresses-changed",
    is_flag=True,
    help="Go on where many users of another system have another address than before.",
)
@yes_option
def apply(
    command: Command,
    source: Path | None,
    given: Given,
    plan_sha256: str | None,
    skip_invalid: bool,
    report: bool,
    addresses_changed: bool,
    yes: bool,
) -> None:
    """Import new and changed users in one transaction, verified before the commit."""
    path = command.source(source)
    given.check(command, path)
    if not yes or schema.pending(command):  # The schema is not touched if nothing comes of it.
        found, migrations = _plan(command, path, given)
        if plan_sha256 not in (None, found.sha256):
            raise errors.PlanOutdated(importing.OUTDATED)
        found.require_users()
        if not skip_invalid:
            _refuse_rejected(command, found)
        if not addresses_changed:
            found.refuse_changed_addresses()
        given.remind(command)
        if not yes and (found.to_write or migrations):
            command.confirm(question(found, len(migrations), command.place))
        plan_sha256 = found.sha256
    command.bring_schema_up_to_date(access.IMPORT)
    with given.open(command, path) as opened:
        given.remind(command)
        done, written = _apply(
            command,
            opened,
            plan_sha256=plan_sha256,
            skip_invalid=skip_invalid,
            addresses_changed=addresses_changed,
            report=report,
        )
    if done.batch:
        command.done = "import"
        command.announce()
    _show(command, f"Import of {path} to {command.place}", done.plan, APPLIED)
    proof: list[tuple[str, object, str]] = [("users' SHA-256", done.plan.users_sha256, "")]
    if done.batch:
        proof = [("batch", done.batch, ""), *proof]
    proof += [("file", str(name), "") for name in written]
    title = "Written and verified" if done.batch else "Nothing to write"
    if done.revoked_sessions:
        proof += [("sessions", done.revoked_sessions, "revoked, as in the source")]
        title = title if done.batch else "Written"
    command.display.table(title, proof)
    if done.batch:
        command.display.text(
            f"Next: {command.face.action('verify')} compares every user again.\n"
            f"Way back: {command.face.action('rollback', done.batch)} undoes this import.\n"
        )
    command.display.result(
        **done.plan.to_json(),
        batch=done.batch,
        revoked_sessions=done.revoked_sessions,
        files=written,
    )


@action(transfer)
@source_option
@origin_options
@click.option("--skip-invalid", is_flag=True, help="Ignore rows that cannot be imported.")
def verify(command: Command, source: Path | None, given: Given, skip_invalid: bool) -> None:
    """Compare every user of the source with Postgres, and list the differing ones."""
    path = command.source(source)
    with given.open(command, path) as opened:
        found = _run(command, opened, importing.verify(command.database(), opened.source()))
    _show(command, f"{path} and {command.place}", found, VERIFIED)
    command.display.result(**found.to_json())
    found.require_users()
    differing = found.differing + (0 if skip_invalid else found.rejected)
    if differing:
        differ = "differs" if differing == 1 else "differ"
        sentence = f"{count(differing, 'user')} {differ} between the source and Postgres."
        if found.to_write:
            sentence += f" `{command.face.action('apply')}` writes who is new or changed."
        command.display.error("users_differ", sentence)
        raise Stop(DIFFERENT)
    command.display.text(f"{agreement(found)}\n")


@action(transfer)
def status_(command: Command) -> None:
    """List imports and rollbacks."""
    found = status.status(command.database())
    command.display.table(
        f"{count(found.users, 'user')} in {command.place}; {count(len(found.batches), 'import')}"
        f"{':' if found.batches else '.'}",
        map(batch_row, found.batches),
    )
    command.display.result(**found.to_json())


@action(transfer)
@click.argument("batch", envvar="BATCH")
@click.option("--dry-run", is_flag=True, help="Show who would go and stay; change nothing.")
@yes_option
def rollback_(command: Command, batch: str, dry_run: bool, yes: bool) -> None:
    """Roll a batch back; keep and list users who have changed or signed up since."""
    if dry_run or not yes:
        planned = command.display.run(rollback.preview(command.database(), batch))
        command.display.table(
            f"Rollback of {batch} in {command.place}, if it is done now",
            [
                (verdict, number, TO_ROLL_BACK[verdict])
                for verdict, number in planned.counts.items()
            ],
        )
        command.display.text(following(planned, "go or change"))
        if dry_run:
            command.display.text("Nothing was changed.\n")
            command.display.result(**asdict(planned))
            return
        command.confirm(question_before_rollback(planned, command.place))
    with Outputs(command.settings.store.users_file, batch) as outputs:

        def on_event(event: Event) -> None:
            if isinstance(event, Outcome):
                line = json.dumps(to_json(event)) + "\n"
                outputs.write("rollback", line.encode(), ".jsonl")
            if isinstance(event, Ready):
                outputs.end()
                command.ignore_interrupts()
                command.ended = event.ended

        done = command.display.run(
            rollback.roll_back(command.database(), batch, run_by=command.who), on_event=on_event
        )
    command.done = "rollback"
    command.announce()
    command.display.table(
        f"Rolled back {batch}",
        [(verdict, number, ROLLED_BACK[verdict]) for verdict, number in done.counts.items()],
    )
    command.display.text(following(done, "went or changed"))
    command.display.table("", [("file", str(path), "") for path in outputs.written])
    command.display.result(**asdict(done), files=outputs.written)


@action(transfer)
@_primary_option
def snapshot_(command: Command, primary: bool) -> None:
    """Take a snapshot for logins during an outage, beside the users file.

    It is signed with SESSION_SECRET, which must be the functions' own; in development it is
    generated and kept. Instances take snapshots automatically, unless SNAPSHOT_INTERVAL is 0.
    """
    settings, database = command.settings, command.database()
    path = settings.store.snapshot_file
    secrets = command.session_secrets()
    if not secrets:
        raise click.UsageError(
            "SESSION_SECRET is missing: set the functions' own, or they reject the snapshot."
        )
    snapshot = Snapshot.of(settings.store, settings.database, secrets)
    replica = None if primary else command.replica(database)
    users = snapshot.take(database, time.time(), replica, max_age=settings.store.snapshot_lag)
    command.done = "snapshot"
    command.display.table(
        f"Snapshot of {command.place}", [("file", str(path), ""), ("users", users, "")]
    )
    as_of = _show_as_of(command, snapshot.taken_at() if replica else None)
    command.display.result(path=str(path), users=users, **as_of)


@action(transfer)
@click.option("--offer", is_flag=True, help="Ask first; without a terminal only report.")
def reconcile(command: Command, offer: bool) -> None:
    """Write the sign-ups of an outage from the users file to Postgres.

    Each is one transaction, and is then removed from the file. Postgres wins: a sign-up whose
    address is taken goes to the quarantine file beside it.
    """
    users = JsonFileStore(command.settings.store)
    waiting = len(users.pending())
    if offer:
        if not waiting or not command.settings.store.use_database:
            return
        are = "is" if waiting == 1 else "are"
        command.display.text(f"{count(waiting, 'sign-up')} {are} not yet in Postgres. ")
        if not sys.stdin.isatty():
            command.display.text("`make migrate-reconcile` writes to Postgres.\n")
            return
        command.confirm("Write to Postgres now?")
    if waiting:
        command.bring_schema_up_to_date(access.RECONCILIATION)
    quarantine = reconciling.quarantine_of(command.settings.store.users_file)
    settled = 0

    def on_event(event: Event) -> None:
        nonlocal settled
        if isinstance(event, Outcome) and event.verdict != pending_sign_ups.REFUSED:
            settled += 1
            command.changed = (
                f"Before that {settled} of {waiting} sign-ups were reconciled; the others are "
                "still pending."
            )

    done = command.display.run(
        reconciling.reconcile(
            command.database(),
            users,
            quarantine,
            asks_for_proof=command.settings.mail.asks_for_proof,
        ),
        on_event=on_event,
    )
    command.done = "reconciliation"
    command.display.table(
        f"Reconciliation of {command.settings.store.users_file} with {command.place}",
        [
            (outcome.replace("_", " "), number, RECONCILED[outcome])
            for outcome, number in done.counts.items()
            if number or outcome == pending_sign_ups.CREATED
        ],
    )
    if done.quarantined:
        command.display.table("", [("file", str(quarantine), "")])
    command.display.result(**asdict(done), quarantine=str(quarantine))
    _tell_unbrought(command, done, quarantine)


@action(transfer)
@click.option(
    "--per-hour",
    type=click.IntRange(1, 100_000),
    default=inviting.PER_HOUR,
    show_default=True,
    help="How many are sent in an hour.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=1_000_000, help="How many at most this time."
)
@click.option(
    "--dry-run", is_flag=True, help="Show how many there are, and one mail; write nothing."
)
@yes_option
def invite(command: Command, per_hour: int, limit: int, *, dry_run: bool, yes: bool) -> None:
    """Invite by mail who has come along without a password to choose one.

    It can be run again until nobody is left: who was invited within a week is passed over.
    """
    mail = command.settings.mail
    if not mail.enabled:
        raise click.UsageError("No mail is sent: set MAIL_URL (docs/MAIL.md).")
    if command.settings.database.url is None:
        raise click.UsageError("There is no outbox in a file: set DATABASE_URL.")
    number = inviting.waiting(command.database())
    now = min(number, limit, per_hour * inviting.MAX_HOURS)
    command.display.table("", [("without a password", number, ""), ("invited now", now, "")])
    if dry_run or not now:
        command.display.text(_one_invitation(command) if dry_run else "Nobody is to be invited.\n")
        command.display.result(waiting=number, invited=0)
        return
    if not yes:
        command.confirm(f"Send {count(now, 'mail')} of {mail.application} from {mail.sender}?")
    done = inviting.invite(command.database(), per_hour=per_hour, most=limit, run_by=command.who)
    command.done = "invitation"
    command.display.text(
        f"{count(done.invited, 'mail')} in the outbox, the last one due in "
        f"{done.seconds / 3600:.1f} hours. Still to be invited: {done.left:,}.\n"
    )
    command.display.result(**asdict(done))


def _one_invitation(command: Command) -> str:
    """Write the mail as everybody gets it, with a link that opens nothing."""
    from shared.mail.delivery import PAGES  # No import needs what writes mails.
    from shared.mail.letters import compose
    from shared.model.mails import Mail

    mail = command.settings.mail
    ids = "00000000-0000-4000-8000-000000000000"
    one = Mail(ids, "invitation", "ada@example.com", ids, 0, "", None, None, time.time(), 0)
    home, link = f"{mail.public_url}/", f"{mail.public_url}{PAGES['invitation']}#token=…"
    message = compose(one, link=link, application=mail.application, home=home)
    return f"From: {mail.sender}\nSubject: {message.subject}\n\n{message.text}"


@action(transfer)
@click.option("--output", type=click.Path(path_type=Path), help="The new file.")
@_primary_option
def export_(command: Command, output: Path | None, primary: bool) -> None:
    """Write all users to a new file in the old format, for a return to the JSON mode."""
    path = output
    if path is None:
        path = sibling_path(command.settings.store.users_file, "export", timestamp(time.time()))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.creating(path) as file:

        def write_anew() -> None:
            file.seek(0)
            file.truncate()

        database = command.database()
        replica = None if primary else command.replica(database)
        done = command.display.run(export.export(database, file.write, replica, write_anew))
    command.done = "export"
    command.display.table(
        f"Export of {command.place}",
        [("file", str(path), ""), ("users", done.rows, ""), ("SHA-256", done.users_sha256, "")],
    )
    as_of = _show_as_of(command, done.as_of)
    if done.not_for_old_server:
        command.display.text(
            "The old Node server cannot verify the password of "
            f"{count(done.not_for_old_server, 'user')}, whose hash is another system's, or of a "
            "password of 72 bytes or more. The JSON mode can.\n"
        )
    command.display.result(
        rows=done.rows,
        users_sha256=done.users_sha256,
        path=str(path),
        not_for_old_server=done.not_for_old_server,
        **as_of,
    )


def _show_as_of(command: Command, moment: float | None) -> dict[str, object]:
    """Show as of when a replica was read, if one was, and give the result's member."""
    if moment is None:
        return {}
    option = command.face.option("--primary")
    text = f"from the read replica: later changes may be missing; {option} reads the primary"
    command.display.table("", [("as of", to_iso(moment), text)])
    return {"as_of": to_iso(moment)}


def _tell_unbrought(command: Command, done: Reconciled, quarantine: Path) -> None:
    """Tell of sign-ups that did not come to Postgres. Raises Stop if there are any."""
    if done.quarantined:
        command.display.error(
            "quarantined",
            f"{count(done.quarantined, 'sign-up')} "
            f"{'is' if done.quarantined == 1 else 'are'} in {quarantine}, with advice for each.",
        )
    if done.refused:
        command.display.error(
            "refused",
            f"The database refuses {count(done.refused, 'sign-up')}, still pending. Change what "
            "refuses that, and run it again.",
        )
    if done.quarantined or done.refused:
        raise Stop(FAILED if done.refused else QUARANTINED)


def _apply(
    command: Command, source: Opened, *, report: bool, **options: Any
) -> tuple[Applied, list[Path]]:
    """Apply, and write the report and the rejected rows before the COMMIT; name these files."""
    batch_id = importing.new_batch_id(time.time())
    rejected: list[int] = []
    with Outputs(source.path, batch_id) as outputs:

        def on_event(event: Event) -> None:
            if isinstance(event, Outcome) and event.verdict in staging.REJECTED and event.row:
                rejected.append(event.row)
            if isinstance(event, Ready):
                if rejected:
                    suffix = source.rejected_suffix
                    write = partial(outputs.write, "rejected", suffix=suffix)
                    source.copy_rows(rejected, write)
                outputs.end()
                command.ignore_interrupts()
                command.ended = event.ended

        done = _run(
            command,
            source,
            importing.apply(
                command.database(),
                source.source(),
                batch_id=batch_id,
                run_by=command.who,
                report=partial(outputs.write, "report", suffix=".jsonl") if report else None,
                **options,
            ),
            on_event,
        )
    return done, outputs.written


def _run(
    command: Command,
    source: Opened,
    transfer: Generator[Event, None, Result],
    on_event: Callable[[Event], object] = lambda _: None,
) -> Result:
    """Run a transfer from a file, whose rejected rows are shown with their users."""
    display = command.display
    named = naming(source, transfer, None if display.as_json else SHOWN_OUTCOMES)
    return display.run(named, length=_size(source.path), on_event=on_event)


def _plan(command: Command, path: Path, given: Given) -> tuple[Plan, list[str]]:
    """Show what an apply would do; give that, and the migrations that it would apply first."""
    with given.open(command, path) as source:
        migrations = schema.pending(command)
        found = _run(command, source, importing.plan(command.database(), source.source()))
    _show(command, f"Plan: {path} to {command.place}", found, PLANNED)
    rows: list[tuple[str, object, str]] = [("migration", name, "pending") for name in migrations]
    command.display.table("", [*rows, ("plan", found.sha256, "")])
    return found, migrations


def _after_plan(command: Command, found: Plan, migrations: list[str]) -> str:
    """Name the next step of who has seen a plan."""
    if not found.to_write and not migrations:
        return "Nothing was changed. There is nothing to write.\n"
    face = command.face
    return (
        f"Nothing was changed. Next: {face.action('backup')} copies the source, "
        f"{face.action('apply')} imports it.\n"
    )


def _refuse_rejected(command: Command, found: Plan) -> None:
    if found.rejected:
        raise errors.RowsRejected(
            f"{found.rejected:,} of {count(found.rows, 'row')} cannot be imported: fix what is "
            f"wrong, or skip with {command.face.option('--skip-invalid')}. Nothing was changed."
        )


def _show(command: Command, title: str, found: Plan, meanings: dict[str, str]) -> None:
    command.display.table(f"{title} ({count(found.rows, 'row')})", plan_rows(found, meanings))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


transfer.add_command(schema.schema)
