"""The checks, in their order: what is looked at later rests on what was looked at before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from shared.doctor import configuration, database, google, machine, mail, redis, replica
from shared.doctor.database import of_database
from shared.doctor.subject import Finding, Findings, Subject, problem

CHECKS: tuple[tuple[str, Callable[[Subject], Findings]], ...] = (
    ("packages", configuration.look_at_packages),
    ("env-file", configuration.look_at_file),
    ("settings", configuration.look_at_settings),
    ("database", of_database(database.look_at_connection)),
    ("pooler", of_database(database.look_at_pooler)),
    ("transport", of_database(database.look_at_transport)),
    ("schema", of_database(database.look_at_schema)),
    ("collation", of_database(database.look_at_collation)),
    ("neighbours", of_database(database.look_at_neighbours)),
    ("role", of_database(database.look_at_role)),
    ("clock", of_database(database.look_at_clock)),
    ("replica", of_database(replica.look_at_replica)),
    ("google", google.look_at_google),
    ("mail", mail.look_at_mail),
    ("redis", redis.look_at_redis),
    ("files", machine.look_at_files),
    ("port", machine.look_at_port),
)
BRIEF = ("pooler", "role", "clock", "files")
"""What is wrong with these, a command does not tell by itself."""


def look_at(subject: Subject, names: Sequence[str] = ()) -> Iterator[tuple[str, Finding]]:
    """Give what each check finds, or each of those that are named."""
    try:
        for name, check in CHECKS:
            if not names or name in names:
                for finding in _findings(check, subject):
                    yield name, finding
    finally:
        if subject.inquiry is not None:
            subject.inquiry.close()


def _findings(check: Callable[[Subject], Findings], subject: Subject) -> Findings:
    """Make a problem of what a system call does not do, where the check expects it to."""
    try:
        yield from check(subject)
    except OSError as error:
        yield problem(
            f"{error.filename or 'A system call'}: {error.strerror or error}.",
            "Let this user read it, or name another path in the settings.",
        )
