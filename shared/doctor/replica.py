"""The read replica: whether it is one of this database, how far it is behind, and what it lacks."""

from __future__ import annotations

import json
import time

from shared.database import migrations
from shared.database.connection import Connection
from shared.database.pool import Database
from shared.database.replica import Outcome, PassedOver, Replica
from shared.doctor.database import LACKING
from shared.doctor.inquiry import Inquiry
from shared.doctor.subject import Findings, note, ok, problem
from shared.formats.counts import count

LATE_SECONDS = 60.0
"""By which a replica may be behind before that is told."""
_READ = (
    "users",
    "identities",
    "revoked_sessions",
    "auth_events",
    "event_hours",
    "changed_hours",
    "schema_migrations",
)
"""What statistics, exports and snapshots read, and this."""
_REMEDIES: dict[Outcome, str] = {
    "away": "Check host and port in DATABASE_READ_URL, that its server runs, and that this machine "
    "may reach it.",
    "unverified": "DATABASE_URL is asked for it first: mend what it says.",
}
_REMEDY = "docs/OPERATIONS.md, “A read replica”, says what to do about each of these."


def look_at_replica(inquiry: Inquiry) -> Findings:
    """Look at it as whoever reads from it does, and at what would be read."""
    url = inquiry.settings.read_url
    if url is None:
        return
    name = f"The read replica {url.database} on {url.host}"
    primary = Database(inquiry.url, inquiry.settings)
    replica = Replica(url, inquiry.settings, primary, report=lambda *_: None)
    try:
        with replica.reading("doctor") as (connection, as_of):
            seconds = time.time() - as_of
            forbidden = _forbidden(connection)
            ((role,),) = connection.execute("SELECT quote_ident(current_user)")
            pending = set() if forbidden else _pending(migrations.status(connection))
    except PassedOver as passed_over:
        cause = passed_over.cause.removesuffix(".")
        yield problem(
            f"{name} is not used, and the primary is read instead: {cause}.",
            _REMEDIES.get(passed_over.outcome, _REMEDY),
        )
        return
    if forbidden:
        yield problem(
            f"{name} lets the role {role} not read {', '.join(forbidden)}.",
            f"On the primary, run `GRANT SELECT ON {', '.join(forbidden)} TO {role}`.",
        )
    if lacking := sorted(pending - _pending(inquiry.migrations)):
        yield problem(
            f"{name} has not replayed {', '.join(lacking)} yet; the primary is read instead of "
            "what that makes.",
            "Wait for it, or look at its log for why it does not replay.",
        )
    if seconds > LATE_SECONDS:
        yield note(
            f"{name} is {count(round(seconds), 'second')} behind.",
            "Look for a long query on it (max_standby_streaming_delay), a paused replay "
            "(pg_is_wal_replay_paused()) or a slow network.",
        )
    if not forbidden and not lacking and seconds <= LATE_SECONDS:
        yield ok(f"{name} follows the primary, at most {count(round(seconds), 'second')} behind.")


def _forbidden(connection: Connection) -> list[str]:
    needed = [
        {"number": number, "name": table, "privilege": "SELECT"}
        for number, table in enumerate(_READ)
    ]
    return [table for table, _ in connection.execute(LACKING, needed=json.dumps(needed))]


def _pending(found: list[migrations.Status]) -> set[str]:
    return {it.name for it in found if it.state == "pending"}
