"""Whether another attempt is worth it where a login, or a pooler, gives no session.

PostgreSQL's own refusals differ by SQLSTATE. Poolers and proxies have one for everything: Neon's
proxy XX000, PgBouncer 08P01, also for what the server told it. There only the text tells.
"""

from __future__ import annotations

import re
from enum import Enum

from shared.database import sqlstate


class Refusal(Enum):
    """What a refusal is worth."""

    STARTING = "the whole deadline, because what starts will have started"
    BUSY = "a few attempts"
    FINAL = "none: the operator has to mend it"


_CODES = {
    sqlstate.CANNOT_CONNECT_NOW: Refusal.STARTING,
    sqlstate.ADMIN_SHUTDOWN: Refusal.BUSY,
    sqlstate.CRASH_SHUTDOWN: Refusal.BUSY,
    sqlstate.CONNECTION_FAILURE: Refusal.BUSY,
    sqlstate.CLASS_INSUFFICIENT_RESOURCES: Refusal.BUSY,
}
"""By SQLSTATE, or by class."""
_BETWEEN = (
    sqlstate.CLASS_CONNECTION_EXCEPTION,
    sqlstate.CLASS_SYSTEM_ERROR,
    sqlstate.CLASS_INTERNAL_ERROR,
)
"""Classes of what poolers and proxies say."""
_TEXTS = (
    # What a server told a pooler, which may tell it behind a text of its own.
    (r"password authentication failed", Refusal.FINAL),
    (r"(database|role|user) .+ does not exist", Refusal.FINAL),
    (r"no pg_hba\.conf entry", Refusal.FINAL),
    (r"not permitted to log in", Refusal.FINAL),
    (r"permission denied for database", Refusal.FINAL),
    (r"too many (connections for|clients already)", Refusal.BUSY),
    (r"connection slots are reserved", Refusal.BUSY),
    (r"the database system is shutting down", Refusal.BUSY),
    (r"the database system is", Refusal.STARTING),
    # Neon. The bare sentence passes; behind a colon stands why it does not.
    (r"^(Control plane|Console) request failed\W*$", Refusal.STARTING),
    (r"^Couldn't connect to compute node", Refusal.STARTING),
    (r"^Failed to acquire permit", Refusal.STARTING),
    (r"^Too many connections attempts", Refusal.STARTING),
    (r"^Too many connections to this endpoint", Refusal.BUSY),
    (r"^Authentication timed out", Refusal.BUSY),
    (r"^Internal error$", Refusal.BUSY),
    (r"^(error communicating with|timeout waiting for|connection closed)", Refusal.BUSY),
    # PgBouncer.
    (r"^transaction blocks not allowed in statement pooling mode", Refusal.FINAL),
    (r"^server login has been failing", Refusal.STARTING),
    (r"^pgbouncer cannot connect to server", Refusal.STARTING),
    (r"^no more connections allowed", Refusal.BUSY),
    (r"^client connections exceeded", Refusal.BUSY),
    (r"^query_wait_timeout", Refusal.BUSY),
    (r"^client_login_timeout", Refusal.BUSY),
    (r"^bouncer resources exhaustion", Refusal.BUSY),
    (r"^server shutting down", Refusal.BUSY),
    # Supavisor, PgCat, and the proxy of RDS.
    (r"max clients reached|max client connections reached", Refusal.BUSY),
    (r"unable to check out connection", Refusal.BUSY),
    (r"could not get connection from the pool", Refusal.BUSY),
    (r"timed-out waiting to acquire", Refusal.BUSY),
)
"""Patterns, the first of which that is found counts."""
_REMEDIES = {
    "statement pooling mode": "set pool_mode = transaction for this database in pgbouncer.ini",
    "unsupported startup parameter": "remove options from DATABASE_URL, and ALTER ROLE … SET what "
    "they set",
    "no such database": "add it to [databases] in pgbouncer.ini",
    "no such user": "add it to the auth_file of PgBouncer, or set auth_query",
}
"""What to do about a part of what a pooler says, which names no remedy."""


def with_remedy(text: str) -> str:
    """Add to what a pooler says what to do about it, where that is known."""
    found = next((remedy for part, remedy in _REMEDIES.items() if part in text), "")
    return f"{text}: {found}" if found else text


def of_login(code: str, text: str) -> Refusal:
    """Tell what a refused login is worth; what is not known will not pass by itself."""
    return of_pooler(code, text) or _CODES.get(code) or _CODES.get(code[:2]) or Refusal.FINAL


def of_pooler(code: str, text: str) -> Refusal | None:
    """Tell what it is worth if something between us and the server said it, and it is known."""
    if not code.startswith(_BETWEEN):
        return None
    return next((found for sought, found in _TEXTS if re.search(sought, text, re.IGNORECASE)), None)
