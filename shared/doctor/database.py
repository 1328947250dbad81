"""The database: connection, pooler, schema, the role's rights, and the two clocks."""

from __future__ import annotations

import json
from collections.abc import Callable

from shared.database.url import NEONS_DIRECT_HOST, POOLED_INSTEAD
from shared.doctor.inquiry import Inquiry, Place
from shared.doctor.subject import Finding, Findings, Subject, note, ok, problem
from shared.errors import StoreFault, StoreUnavailable, StoreUnreachable
from shared.formats.counts import count
from shared.store.postgres import neighbours
from shared.store.postgres.status import SKEW_SECONDS

SLOW_SECONDS = 0.1
"""A round trip that takes longer is told: a login makes two to four."""

_ROLE = """
SELECT rolsuper OR rolbypassrls, pg_catalog.has_database_privilege(current_user,
    pg_catalog.current_database(), 'TEMPORARY'), pg_catalog.to_regclass('users') IS NOT NULL
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_OTHER_COLLATION = """
SELECT datcollversion, pg_catalog.pg_database_collation_actual_version(oid)
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
AND datcollversion <> pg_catalog.pg_database_collation_actual_version(oid)
"""
_KNOWS_COLLATIONS = 15
"""The first version of PostgreSQL that keeps a database's."""
LACKING = """
SELECT needed.name, needed.privilege || coalesce(' (' || needed.attribute || ')', '')
FROM pg_catalog.json_to_recordset(:needed::json)
    AS needed (number int, name text, privilege text, attribute text),
    LATERAL (SELECT pg_catalog.to_regclass(needed.name)::oid AS oid) found
WHERE found.oid IS NOT NULL AND NOT CASE
    WHEN needed.attribute IS NULL
    THEN pg_catalog.has_table_privilege(found.oid, needed.privilege)
    ELSE pg_catalog.has_column_privilege(found.oid, needed.attribute, needed.privilege) END
ORDER BY needed.number
"""
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
NEEDED: dict[str, tuple[str, ...]] = {
    "users": _ALL,
    "identities": _ALL,
    "revoked_sessions": _ALL,
    "auth_attempts": _ALL,
    "auth_events": _ALL,
    "event_hours": _ALL,
    "changed_hours": _ALL,
    "mail_outbox": _ALL,
    "schema_migrations": ("SELECT",),
    "applied_ops": ("SELECT",),
    "import_records": ("SELECT", "UPDATE previous"),
    "pending_email_keys": ("SELECT", "DELETE"),
}
"""What requests do with each table; a column behind a verb is the only one."""


def of_database(check: Callable[[Inquiry], Findings]) -> Callable[[Subject], Findings]:
    """Make it a check that finds nothing where there is no database, or was no answer before."""

    def look_at(subject: Subject) -> Findings:
        inquiry = subject.inquiry
        if inquiry is None or inquiry.failure is not None:
            return
        try:
            yield from check(inquiry)
        except StoreUnavailable as error:
            inquiry.failure = error
            yield _unavailable(inquiry, error)
        except StoreFault as error:
            yield problem(
                f"The database {inquiry.url.database} on {inquiry.host} refused a question: "
                f"{error}.",
                "Find the code in appendix A of PostgreSQL's documentation.",
            )

    return look_at


def _unavailable(inquiry: Inquiry, error: StoreUnavailable) -> Finding:
    name, cause = f"{inquiry.url.database} on {inquiry.host}", str(error).rstrip(".")
    if isinstance(error, StoreUnreachable):
        return problem(
            f"The database {name} does not answer: {cause}.",
            "Check host and port in DATABASE_URL, that the server runs, and that this machine may "
            "reach it.",
        )
    return problem(
        f"The database {name} cannot be used: {cause}.",
        "docs/DATABASE_SETUP.md, 6, says what to do about each of these.",
    )


def look_at_connection(inquiry: Inquiry) -> Findings:
    """Connect as requests do."""
    place = inquiry.served
    seconds = inquiry.round_trip()
    name = f"{inquiry.url.database} on {inquiry.url.host}"
    if place.is_standby:
        yield problem(
            f"The database {name} takes no writes: its server is a standby.",
            "Name the primary server in DATABASE_URL.",
        )
    elif place.is_read_only:
        yield problem(
            f"The database {name} takes no writes: its transactions begin read-only.",
            f"Run `ALTER DATABASE {place.database} RESET default_transaction_read_only`, and the "
            f"same for the role {place.role}.",
        )
    if seconds > SLOW_SECONDS:
        yield note(
            f"A round trip to {inquiry.url.host} takes {seconds * 1000:.0f} ms.",
            "Serve from a region that is nearer to the database.",
        )
    yield ok(f"{name} answers: PostgreSQL {place.version}, role {place.role}.")


def look_at_pooler(inquiry: Inquiry) -> Findings:
    """Compare where requests are served with where migrations go."""
    host = inquiry.url.host
    if not inquiry.has_pooler:
        if inquiry.url.is_neons_direct_host and inquiry.settings.endpoint is None:
            yield note(NEONS_DIRECT_HOST, POOLED_INSTEAD)
        return
    differences = list(_differences(inquiry.served, inquiry.migrated, "Through the pooler"))
    yield from differences
    if not differences:
        yield ok(f"{host} leads to the same database, role and schema as the direct host.")


def _differences(served: Place, migrated: Place, way: str) -> Findings:
    for what in ("database", "role", "schema"):
        here, there = getattr(served, what), getattr(migrated, what)
        if here != there:
            yield problem(
                f"{way} the {what} is {here or 'none'}, without it {there or 'none'}: "
                "requests would not see what a migration makes.",
                f"Run `ALTER ROLE {served.role} SET search_path = …`, instead of `options` in "
                "DATABASE_URL."
                if what == "schema"
                else "Ask whoever runs the pooler to pass it through.",
            )


def look_at_transport(inquiry: Inquiry) -> Findings:
    """Ask by HTTP, where requests go so, and compare that with where migrations go."""
    endpoint = inquiry.settings.endpoint
    if endpoint is None:
        return
    try:
        served = inquiry.by_http()
    except StoreUnavailable as error:
        yield problem(
            f"By HTTP, at {endpoint}, the database does not answer: {str(error).rstrip('.')}.",
            "Check DATABASE_HTTP_URL, or leave out DATABASE_TRANSPORT: requests then go over TCP.",
        )
        return
    differences = list(_differences(served, inquiry.migrated, "By HTTP"))
    yield from differences
    if not differences:
        yield ok(f"{endpoint} answers, from the same database, role and schema as over TCP.")


def look_at_schema(inquiry: Inquiry) -> Findings:
    """Tell what stands in the way of migrations and of requests, and what is pending."""
    for obstacle in inquiry.obstacles:
        yield problem(obstacle.problem, obstacle.remedy)
    if inquiry.obstacles:
        return
    states: dict[str, list[str]] = {}
    for migration in inquiry.migrations:
        states.setdefault(migration.state, []).append(migration.name)
    if edited := states.get("edited"):
        yield problem(
            f"Edited after they had been applied: {', '.join(edited)}.",
            "Restore these files, and put the change into a new one.",
        )
    if pending := states.get("pending"):
        names = f"{count(len(pending), 'migration')} not applied yet: {', '.join(pending)}."
        if inquiry.settings.auto_migrate:
            yield note(names, "The first request applies them; `make migrate-schema` does it now.")
        else:
            yield problem(names, "AUTO_MIGRATE is off: run `make migrate-schema`.")
    if unknown := states.get("unknown"):
        yield note(
            f"Applied by newer code: {', '.join(unknown)}.",
            "This is right after a return to an earlier version; otherwise update the code.",
        )
    if not edited and not pending:
        yield ok(f"All {count(len(states.get('applied', [])), 'migration')} are applied.")


def look_at_collation(inquiry: Inquiry) -> Findings:
    """Tell where the system has got other collations, by which indexes are in another order."""
    if int(inquiry.served.version.partition(".")[0]) < _KNOWS_COLLATIONS:
        return
    database, found = inquiry.served.database, inquiry.ask(_OTHER_COLLATION)
    if not found:
        yield ok("The collation is the one by which the indexes were built.")
    for then, now in found:
        yield problem(
            f"The collation of the database {database} was of version {then}, and is of {now} "
            "since the server's system was updated: indexes may not find users who are there.",
            f"Run `REINDEX DATABASE {database}`, and `ALTER DATABASE {database} REFRESH COLLATION "
            "VERSION` when it has worked.",
        )


def look_at_neighbours(inquiry: Inquiry) -> Findings:
    """Tell what others have on the tables, and what becomes of their rows when a user goes."""
    if inquiry.obstacles:
        return  # The tables may be somebody else's altogether.
    remarks = neighbours.remarks(inquiry.ask)
    for remark in remarks:
        yield note(remark.sentence, remark.remedy)
    if not remarks:
        yield ok("No trigger of another's is on the tables, and no other table refers to users.")


def look_at_role(inquiry: Inquiry) -> Findings:
    """Compare the role's rights with what requests, imports and rollbacks need."""
    role = inquiry.served.role
    needed = [
        {"name": table, "privilege": verb, "attribute": column or None}
        for table, rights in NEEDED.items()
        for verb, _, column in (right.partition(" ") for right in rights)
    ]
    numbered = [{"number": number, **row} for number, row in enumerate(needed)]
    lacking: dict[str, list[str]] = {}
    for table, privilege in inquiry.ask(LACKING, needed=json.dumps(numbered)):
        lacking.setdefault(table, []).append(privilege)
    for table, privileges in lacking.items():
        verbs = ", ".join(privileges)
        yield problem(
            f"The role {role} lacks {verbs} on {table}.",
            f"As the owner, run `GRANT {verbs} ON {table} TO {role}`.",
        )
    ((is_mighty, may_make_temporary, has_tables),) = inquiry.ask(_ROLE)
    if is_mighty:
        yield note(
            f"The role {role} is a superuser or bypasses row security.",
            "Give the service a role of its own, which owns its tables and nothing else.",
        )
    if not may_make_temporary:
        database = inquiry.served.database
        yield note(
            f"The role {role} may make no temporary tables, which an import and a rollback need.",
            f"For these, run `GRANT TEMPORARY ON DATABASE {database} TO {role}`.",
        )
    if has_tables and not lacking:
        yield ok(f"The role {role} has the rights that requests need.")


def look_at_clock(inquiry: Inquiry) -> Findings:
    """Compare the clock here with the database's."""
    ahead = inquiry.seconds_ahead()
    if abs(ahead) > SKEW_SECONDS:
        yield problem(
            f"The clock here is {count(round(abs(ahead)), 'second')} "
            f"{'ahead of' if ahead > 0 else 'behind'} the database's.",
            "Check the time service of this machine (`timedatectl`), then that of the database.",
        )
    else:
        yield ok(f"The clock here and the database's agree, to {SKEW_SECONDS:g} seconds.")
