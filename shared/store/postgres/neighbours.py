"""What others have on our tables: their triggers, and their tables that refer to users.

None of it is refused. It decides what becomes of a row that we write or delete, and so is named to
whoever looks, and where a row did not come, or go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shared.database.connection import Row
from shared.database.statement import Statement
from shared.store.postgres.shapes import TABLES, TRIGGERS

Ask = Callable[..., list[Row]]
"""Runs a statement with its parameters: a `Database`'s `execute`, or a connection's."""

_TRIGGERS = Statement(
    "others_triggers",
    """
SELECT c.relname::text, quote_ident(tgname), CASE WHEN tgtype & 2 > 0 THEN 'BEFORE' ELSE 'AFTER' END
    || CASE WHEN tgtype & 4 > 0 THEN ' INSERT' ELSE '' END
    || CASE WHEN tgtype & 16 > 0 THEN ' UPDATE' ELSE '' END
    || CASE WHEN tgtype & 8 > 0 THEN ' DELETE' ELSE '' END
FROM json_array_elements_text(:tables::json) AS name
JOIN pg_class c ON c.oid = to_regclass(name) JOIN pg_trigger ON tgrelid = c.oid
WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 28 > 0
AND tgname NOT IN (SELECT json_array_elements_text(:ours::json))
ORDER BY c.relname, tgname
""",
    is_prepared=False,
)
# What goes with a row that goes with a user goes, too.
_REFERRING = Statement(
    "others_references",
    """
WITH RECURSIVE referring AS (
    SELECT conrelid, confdeltype FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0 AND confrelid = to_regclass('users')
    UNION
    SELECT c.conrelid, c.confdeltype FROM referring r
    JOIN pg_constraint c ON c.confrelid = r.conrelid AND contype = 'f' AND conparentid = 0
    WHERE r.confdeltype = 'c'
)
SELECT conrelid::regclass::text, CASE confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL'
    WHEN 'd' THEN 'SET DEFAULT' WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END
FROM referring WHERE conrelid NOT IN (
    SELECT to_regclass(name) FROM json_array_elements_text(:ours::json) AS name
    WHERE to_regclass(name) IS NOT NULL
) ORDER BY 1, 2
""",
    is_prepared=False,
)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of another's that is switched on. The name is as SQL has it."""

    table: str
    name: str
    when: str
    """Such as `BEFORE`."""
    verbs: frozenset[str]

    def __str__(self) -> str:
        order = [verb for verb in ("INSERT", "UPDATE", "DELETE") if verb in self.verbs]
        return f"{self.name} ({self.when} {' OR '.join(order)})"


@dataclass(frozen=True, slots=True)
class Reference:
    """A table of another's that refers to users, or to what goes with them."""

    table: str
    on_delete: str

    @property
    def follows(self) -> bool:
        """Whether its rows go with a user, or change, where those of others keep the user."""
        return self.on_delete not in ("NO ACTION", "RESTRICT")

    def __str__(self) -> str:
        return f"{self.table} (ON DELETE {self.on_delete})"


def triggers(ask: Ask, tables: Iterable[str] = TABLES) -> list[Trigger]:
    """Find the triggers of others. Raises as `ask`."""
    rows = ask(_TRIGGERS, tables=json.dumps([*tables]), ours=json.dumps([*TRIGGERS]))
    found = [(table, name, *fires.split()) for table, name, fires in rows]
    return [Trigger(table, name, when, frozenset(verbs)) for table, name, when, *verbs in found]


def references(ask: Ask) -> list[Reference]:
    """Find the tables of others that refer to users. Raises as `ask`."""
    ours = [name for name, table in TABLES.items() if table.follows_users]
    return [Reference(*row) for row in ask(_REFERRING, ours=json.dumps(ours))]
