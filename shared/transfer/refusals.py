"""Finds the row of an import that the database refuses, or holds otherwise than the source.

A constraint or a trigger of another's may refuse what passed every check of ours, and PostgreSQL
tells of a thousand rows only that one was refused. So they are written once more, by halves.
"""

from __future__ import annotations

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.errors import StoreFault, TransferRefused
from shared.store.postgres.statements import WIDTHS
from shared.transfer import staging, writing

_SIGNED_UP = """
SELECT EXISTS (SELECT FROM staged_users s JOIN users u USING (id) WHERE s.verdict = 'new')
"""
_LAST_ROW = "SELECT coalesce(max(row), 0) FROM staged_users"
_ID = "SELECT id::text FROM staged_users WHERE row = :row::bigint"
_TOO_LONG = f"""
SELECT attname FROM ({WIDTHS.text}) widths, staged_users s
WHERE row = :row::bigint AND width > 0 AND char_length(to_jsonb(s)->>attname) > width
"""


def explain(connection: Connection, fault: StoreFault) -> TransferRefused:
    """Make the error for a fault in `writing.write` that names the row.

    To be called when all that was written is undone; what this writes is to be undone as well.
    """
    if fault.sqlstate == sqlstate.UNIQUE_VIOLATION and _has_somebody_come(connection):
        return TransferRefused(
            "A user of the source has just signed up or linked an identity: run it again.",
            **fault.facts,
        )
    last = int(connection.execute(_LAST_ROW)[0][0])
    for statement in writing.PARTS:
        if found := _first_refused(connection, statement, last):
            row, fault = found
            if fault.sqlstate == sqlstate.STRING_TOO_LONG:
                for (column,) in connection.execute(_TOO_LONG, row=row):
                    fault.objects |= {"table": "users", "column": column}
            break
    else:
        return TransferRefused(
            f"The database refused the users once, and not again: {fault}. Nothing was changed. "
            "Run it again.",
            **fault.facts,
        )
    ((user_id,),) = connection.execute(_ID, row=row)
    return TransferRefused(
        f"The database refuses row {row} (user {user_id}): {fault}. Nothing was changed. Change "
        "the row, or what refuses it.",
        **fault.facts,
    )


def _has_somebody_come(connection: Connection) -> bool:
    """Tell whether users came, or took an identity, whom the verdicts know nothing of."""
    before = staging.counts(connection)
    staging.find_taken_emails(connection)
    staging.find_taken_identities(connection)
    return staging.counts(connection) != before or bool(connection.execute(_SIGNED_UP)[0][0])


def _first_refused(
    connection: Connection, statement: str, last: int
) -> tuple[int, StoreFault] | None:
    """Write rows up to the first that is refused, and give that and the fault.

    What is not refused stays written: a row may be refused because of one before it.
    """
    first = 1
    fault = _refusal(connection, statement, first, last)
    while fault is not None and first < last:
        middle = (first + last) // 2
        if refused := _refusal(connection, statement, first, middle):
            last, fault = middle, refused
        else:
            first = middle + 1
            fault = _refusal(connection, statement, first, last) if first == last else fault
    return None if fault is None else (first, fault)


def _refusal(connection: Connection, statement: str, first: int, last: int) -> StoreFault | None:
    """Write some rows, or nothing and give the fault."""
    rows = f"s.row BETWEEN {first} AND {last}"
    connection.run_script("SAVEPOINT rows")
    try:
        connection.run_script(
            f"{statement.format(rows=rows)}; SET CONSTRAINTS ALL IMMEDIATE;"
            "SET CONSTRAINTS ALL DEFERRED; RELEASE rows"
        )
    except StoreFault as fault:
        connection.run_script("ROLLBACK TO rows")
        return fault
    return None
