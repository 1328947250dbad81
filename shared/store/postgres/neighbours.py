"""What others have on our tables: their triggers, and their tables that refer to users.

None of it is refused. It decides what becomes of a row that we write or delete, and so is named to
whoever looks, and where a row did not come, or go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shared.database.session import Row
from shared.database.statement import Statement
from shared.store.postgres.shapes import TABLES, TRIGGERS, USERS

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


@dataclass(frozen=True, slots=True)
class Remark:
    """What an operator should know of a neighbour, and may do about it."""

    object: str
    """Its kind and name, such as `trigger guard on users`."""
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}"


def remarks(ask: Ask) -> list[Remark]:
    """Say of each trigger and each reference of others what it may do. Raises as `ask`."""
    return [
        *map(_of_trigger, triggers(ask)),
        *(_of_reference(reference) for reference in references(ask)),
    ]


def _of_trigger(trigger: Trigger) -> Remark:
    advice = []
    deletes = trigger.when == "BEFORE" and "DELETE" in trigger.verbs
    if deletes and trigger.table != USERS:
        advice.append("If it keeps the row, what has expired is never deleted: let it return OLD.")
    elif deletes:
        advice.append(
            "If it keeps the row, as a soft delete does, accounts cannot be deleted (503), nor"
            " imports rolled back: let it return OLD."
        )
    if trigger.when == "BEFORE" and trigger.verbs - {"DELETE"}:
        advice.append("What it keeps out or changes is refused with 503, and by an import.")
    if trigger.when == "AFTER":
        advice.append(
            "See that it neither deletes nor changes the row: what it does so late, no answer tells"
            " of, and a sign-up is 201 although nobody is there."
        )
    return Remark(
        f"trigger {trigger.name} on {trigger.table}",
        f"{trigger.table} has a trigger of another's, {trigger}.",
        " ".join(advice),
    )


def _of_reference(reference: Reference) -> Remark:
    if reference.follows:
        sentence = f"The deletion of a user changes {reference}."
        remedy = "Without ON DELETE its rows stay, and the deletion is refused with 409."
    else:
        sentence = f"Users to whom rows of {reference} refer cannot be deleted (409)."
        remedy = "Declare it ON DELETE CASCADE or SET NULL if these rows are to follow the user."
    return Remark(f"table {reference.table}", sentence, remedy)
