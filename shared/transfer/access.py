"""What a transfer may do in its database, and what is there: looked at before anything is begun.

What only reads needs SELECT and no right beside it, so that it works on a standby and under
`default_transaction_read_only`. Tables that an older schema lacks are empty to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from shared.database.connection import Connection
from shared.errors import TransferRefused
from shared.store.postgres.shapes import TABLES

Rights = Mapping[str, tuple[str, ...]]
"""What a role must be allowed to do with each table."""

_READ, _ADD = ("SELECT",), ("SELECT", "INSERT")
IMPORT: Rights = {
    "users": ("SELECT", "INSERT", "UPDATE"),
    "identities": ("SELECT", "INSERT", "DELETE"),
    "import_batches": _ADD,
    "import_records": ("SELECT", "INSERT", "UPDATE"),
    "applied_ops": _ADD,
    "revoked_sessions": _ADD,
    "auth_events": ("INSERT",),
    "pending_email_keys": _READ,
}
ROLLBACK: Rights = {
    "users": ("SELECT", "UPDATE", "DELETE"),
    "identities": ("SELECT", "INSERT", "DELETE"),
    "import_batches": ("SELECT", "UPDATE"),
    "import_records": ("SELECT", "UPDATE", "DELETE"),
    "applied_ops": _READ,
    "auth_events": ("INSERT",),
}
RECONCILIATION: Rights = {
    "users": ("SELECT", "INSERT", "UPDATE"),
    "applied_ops": ("SELECT", "INSERT", "UPDATE"),
    "revoked_sessions": _ADD,
    "auth_events": _ADD,
    "pending_email_keys": _READ,
}
"""What each that writes does with the tables, where nobody's key is missing."""
INVITATION: Rights = {"users": _READ, "auth_events": _ADD, "mail_outbox": _ADD}
MAIL: Rights = {"mail_outbox": _ADD}
"""And a reconciliation that asks by mail for the proof of an address."""

_FOUND = """
SELECT name, found IS NULL, NOT has_table_privilege(found, 'SELECT'), quote_ident(current_user)
FROM (
    SELECT name, to_regclass(name)::oid AS found
    FROM unnest(string_to_array(:tables, ',')) AS name
) tables
"""
_UNADOPTED = """
SELECT to_regclass('users') IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = to_regclass('users') AND attname = 'epoch'
)
"""
_WRITABLE = """
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    NOT has_database_privilege(current_database(), 'TEMPORARY'), (
        SELECT json_agg(ARRAY[name, verb] ORDER BY name, n)
        FROM json_each(:rights::json) AS needed (name, verbs),
            json_array_elements_text(verbs) WITH ORDINALITY AS given (verb, n)
        WHERE NOT has_table_privilege(to_regclass(name)::oid, verb)
    ), quote_ident(current_database()), quote_ident(current_user)
"""


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables that may be read, those among them that the schema lacks as empty ones."""

    lacking: tuple[str, ...]

    def sql(self, query: str) -> str:
        """Give a query over them, with empty tables of its own for those that are lacking."""
        if not self.lacking:
            return query
        empty = ", ".join(map(_empty, self.lacking))
        query = query.strip()
        if query.startswith("WITH "):
            return f"WITH {empty}, {query.removeprefix('WITH ')}"
        return f"WITH {empty} {query}"


def readable(connection: Connection, *tables: str) -> Tables:
    """Look at the tables. Raises TransferRefused where the role may not read one of them."""
    require_adopted(connection)
    found = connection.execute(_FOUND, tables=",".join(tables))
    lacking, forbidden = ([row[0] for row in found if row[which]] for which in (1, 2))
    if forbidden:
        names, role = ", ".join(forbidden), found[0][3]
        raise TransferRefused(
            f"The role {role} may not read {names}: GRANT SELECT ON {names} TO {role}."
        )
    return Tables(tuple(lacking))


def require_adopted(connection: Connection) -> None:
    """Raise TransferRefused where the users table is the old server's still."""
    if connection.execute(_UNADOPTED)[0][0]:
        raise TransferRefused(
            "The users table is still the old server's: `make migrate-schema` adopts it, and "
            "`make migrate-schema-plan` shows how."
        )


def require_writable(connection: Connection, rights: Rights) -> None:
    """Raise TransferRefused where nothing can be written, or not all of it by this role."""
    ((is_standby, is_read_only, no_temporary, lacking, database, role),) = connection.execute(
        _WRITABLE, rights=json.dumps(rights)
    )
    if is_standby:
        problem = "The database is a standby, which only reads: use the primary's address."
    elif is_read_only:
        problem = (
            f"Transactions of the role {role} in the database {database} are read-only: RESET "
            "default_transaction_read_only of that role or database, or use another role."
        )
    elif no_temporary:
        problem = (
            f"The role {role} may not make temporary tables, which an import needs: "
            f"GRANT TEMPORARY ON DATABASE {database} TO {role}."
        )
    elif lacking:
        verbs: dict[str, list[str]] = {}
        for table, verb in lacking:
            verbs.setdefault(table, []).append(verb)
        grants = [f"{', '.join(given)} ON {table}" for table, given in verbs.items()]
        problem = (
            f"The role {role} lacks rights that this needs: use the role that owns the tables, or "
            f"{'; '.join(f'GRANT {grant} TO {role}' for grant in grants)}."
        )
    else:
        return
    raise TransferRefused(f"{problem} Nothing was changed.")


def _empty(table: str) -> str:
    columns = ", ".join(
        f"NULL::{column.type} AS {name}" for name, column in TABLES[table].columns.items()
    )
    return f"{table} AS (SELECT {columns} WHERE false)"
