"""Brings a database up to date before anyone uses it: the schema, and the keys of its old rows."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared import migrations
from shared.config import Settings
from shared.connection import Connection
from shared.database import Database
from shared.database_url import DatabaseUrl
from shared.emails import email_key

# Those for which SQL's email_key() may differ from ours, by its bytes or by Punycode.
_DOUBTFUL_KEYS = """
SELECT id, email, email_key FROM users
WHERE octet_length(email) > char_length(email) OR email ILIKE '%@%xn--%'
"""
_SET_KEY = """
UPDATE users SET email_key = $2 WHERE id = $1::uuid
AND NOT EXISTS (SELECT FROM users WHERE email_key = $2)
"""


def prepare(database: Database, connection: Connection, deadline: float, *, apply: bool) -> None:
    """Bring the schema up to date, and with it the keys of the rows that were there before."""
    if migrations.prepare(database, connection, deadline, apply=apply):
        correct_keys(database, deadline)


def bring_up_to_date(
    url: DatabaseUrl, settings: Settings, report: Callable[[str], None] = migrations.log_applied
) -> None:
    """Do by hand what an instance's first connection does, past a pooler all the way.

    `report` gets the name of each file. Raises StoreUnavailable, StoreFault.
    """
    database = Database(url, settings)
    deadline = time.monotonic() + settings.database_timeout
    with database.direct_connection(deadline) as connection:
        migrations.apply_pending(connection, deadline, report)
    correct_keys(database, deadline)


def correct_keys(database: Database, deadline: float) -> None:
    """Give the old server's rows the key that a login looks for, where SQL made another.

    A key that belongs to another row is not taken away; this one then stays without.
    """
    with database.direct_connection(deadline) as connection:
        wrong = [
            (str(user_id), email_key(email))
            for user_id, email, key in connection.execute(_DOUBTFUL_KEYS)
            if key != email_key(email)
        ]
        if not wrong:
            return
        connection.run_script("BEGIN; SET LOCAL ai_coder.as_given = 'on'")
        for user_id, _ in wrong:
            connection.execute("UPDATE users SET email_key = NULL WHERE id = $1::uuid", user_id)
        for user_id, key in wrong:
            connection.execute(_SET_KEY, user_id, key)
        connection.run_script("COMMIT")
