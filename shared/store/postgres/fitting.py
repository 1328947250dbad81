"""Compares tables, as the catalogs have them, with `shapes`: whose they are, and what is amiss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from shared.store.postgres.shapes import TIME, Column, Table

_NOW = "CURRENT_TIMESTAMP"
_IS_NOW = re.compile(
    r"((CURRENT|LOCAL)_?TIMESTAMP(\(\d\))?|(now|(transaction|statement|clock)_timestamp)\(\))"
    r"(::timestamp with(out)? time zone)?"
)
"""What is the same instant in a column with a zone and in one without it."""


def foreign(
    relation: dict[str, Any], table: Table, recorded: set[int], *, is_old: bool = False
) -> Iterator[str]:
    """Say what tells that a table is somebody else's; `recorded` are the applied migrations."""
    if relation["kind"] != "r" or relation["has_parts"]:
        yield "it is no ordinary table"
        return
    columns = relation["columns"]
    for name, column in table.columns.items():
        held = columns.get(name)
        if held is None:
            continue
        if not _is_of_kind(held["type"], column.type, is_old=is_old):
            yield f"{name} is {held['type']}, not {column.type}"
        elif held["is_generated"]:
            yield f"{name} is generated"
    missing = [
        name
        for name, column in table.columns.items()
        if name not in columns and column.since in {0, *recorded}
    ]
    if missing:
        yield f"it has no column {', '.join(missing)}"


def _is_of_kind(held: str, wanted: str, *, is_old: bool) -> bool:
    """Tell whether a type is the wanted one, or can be made so without a loss."""
    if wanted.startswith("character varying"):
        return held.startswith("character") or held in ("text", "bpchar") or "citext" in held
    if wanted == TIME:
        held = re.sub(r"\(\d\)", "", held)
        return held == TIME or (is_old and held == "timestamp without time zone")
    return held == wanted


def unfit(relation: dict[str, Any], table: Table, *, is_old: bool) -> Iterator[tuple[str, str]]:
    """Give what has to be mended of a table that is ours, and what ALTER TABLE does it."""
    if not relation["is_logged"]:
        yield "it is UNLOGGED, so that a crash of the server empties it", "SET LOGGED"
    for name, column in table.columns.items():
        held = relation["columns"].get(name)
        if held is not None:
            yield from _unfit_column(name, held, column, is_old=is_old)
    for name, held in relation["columns"].items():
        if name not in table.columns and not (
            held["is_nullable"] or held["has_default"] or held["is_generated"]
        ):
            name = quoted(name)
            yield (
                f"{name} is NOT NULL and has no default, so that no row could be added",
                f"ALTER {name} DROP NOT NULL",
            )
    for number, columns in enumerate(table.keys):
        if not any(
            key["columns"] == sorted(columns) and (key["is_immediate"] or number)
            for key in relation["keys"]
        ):
            kind = "UNIQUE" if number else "PRIMARY KEY"
            listed = ", ".join(columns)
            yield f"it has no {kind.lower()} ({listed})", f"ADD {kind} ({listed})"
    if table.follows_users and not relation["follows_users"]:
        key = "FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE"
        yield "its rows would stay when their user goes", f"ADD {key}"


def _unfit_column(
    name: str, held: dict[str, Any], column: Column, *, is_old: bool
) -> Iterator[tuple[str, str]]:
    if not _holds(held["type"], column.type, is_old=is_old):
        yield f"{name} is {held['type']}, not {column.type}", f"ALTER {name} TYPE {column.type}"
    if not held["is_deterministic"]:
        yield (
            f"{name} has a collation by which different texts are equal",
            f'ALTER {name} TYPE {column.type} COLLATE "default"',
        )
    if column.is_nullable and not held["is_nullable"]:
        yield f"{name} is NOT NULL", f"ALTER {name} DROP NOT NULL"
    elif held["is_nullable"] and not column.is_nullable:
        yield (
            f"{name} may be NULL",
            f"ALTER {name} SET NOT NULL; rows that have none need a value before, or go",
        )
    if column.default and not held["has_default"]:
        yield f"{name} has no default", f"ALTER {name} SET DEFAULT {column.default}"
    elif column.default == _NOW and not _IS_NOW.fullmatch(held["default"]):
        # One of UTC would be taken for the session's zone once the column has a zone.
        yield f"{name} has the default {held['default']}", f"ALTER {name} SET DEFAULT {_NOW}"


def _holds(held: str, wanted: str, *, is_old: bool) -> bool:
    """Tell whether a type, which is of the right kind, takes every value of the wanted one."""
    if wanted.startswith("character varying"):
        if held in ("text", "character varying"):
            return True
        width = re.fullmatch(r"character varying\((\d+)\)", held)
        return width is not None and int(width[1]) >= int(wanted[18:-1])
    return held == wanted or (is_old and wanted == TIME and "without" in held)


def quoted(name: str) -> str:
    """Write a name as SQL takes it."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
