"""What users lose whom a source changes, because it no longer has it, or never had.

An export is complete, or a catch-up with an option or a key forgotten takes away what the import
before it brought.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from typing import Any

from shared.database.connection import Connection
from shared.model.users import SOURCE_ISSUER

ADDRESS, PASSWORD, IDENTITY, FACTOR = "address", "password", "identity", "second_factor"
MAX_EXAMPLES = 3


def losing(staged: str) -> str:
    """Write the SELECT of row and `kind`, once for each loss.

    `staged` is a relation of changed rows, with `has_password`, `has_factor` and their identities
    as pairs. ADDRESS is of those alone whose id was made of another system's: it may be somebody
    else's, who had the same id in another installation.
    """
    return f"""
SELECT row, unnest(array_remove(ARRAY[
    CASE WHEN u.email_key <> s.email_key AND EXISTS (
        SELECT FROM jsonb_array_elements(s.identities) pair
        WHERE starts_with(pair->>0, '{SOURCE_ISSUER}')
    ) THEN '{ADDRESS}' END,
    CASE WHEN u.password IS NOT NULL AND NOT s.has_password THEN '{PASSWORD}' END,
    CASE WHEN EXISTS (
        SELECT FROM identities held WHERE held.user_id = u.id
            AND jsonb_build_array(jsonb_build_array(issuer, subject)) <@ s.identities IS NOT TRUE
    ) THEN '{IDENTITY}' END,
    CASE WHEN u.totp_secret IS NOT NULL AND NOT s.has_factor THEN '{FACTOR}' END
], NULL)) AS kind
FROM {staged} s JOIN users u ON u.id = s.id
"""


_STAGED = """(
    SELECT row, id, email_key, password IS NOT NULL AS has_password,
        totp_secret IS NOT NULL AS has_factor, identities
    FROM staged_users WHERE verdict = 'changed'
)"""
_COUNTED = f"""
SELECT kind, count(*), array_to_json((array_agg(row ORDER BY row))[1:{MAX_EXAMPLES}])
FROM ({losing(_STAGED)}) lost GROUP BY kind
"""


def staged(connection: Connection) -> dict[str, dict[str, Any]]:
    """Count the losses of the changed rows in the staging table."""
    found = {
        kind: {"rows": int(number), "examples": examples}
        for kind, number, examples in connection.execute(_COUNTED)
    }
    return _ordered(found)


def counted(
    lost: dict[str, array[int]], rows: array[int], passed_over: Collection[int]
) -> dict[str, dict[str, Any]]:
    """Count losses by the indexes of rows, but for those that are not written after all."""
    found: dict[str, dict[str, Any]] = {}
    for kind, indexes in lost.items():
        numbers = [rows[index] for index in indexes if index not in passed_over]
        if numbers:
            found[kind] = {"rows": len(numbers), "examples": sorted(numbers)[:MAX_EXAMPLES]}
    return _ordered(found)


def _ordered(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds: Iterable[str] = (ADDRESS, PASSWORD, IDENTITY, FACTOR)
    return {kind: found[kind] for kind in kinds if kind in found}
