"""Constraints and triggers as an operator may have added them, each by the name `guard`."""

from __future__ import annotations

_TRIGGER = """
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {deed} END $$;
CREATE TRIGGER guard {when} ON {table} FOR EACH ROW EXECUTE FUNCTION guard()
"""


def trigger(deed: str, when: str = "BEFORE INSERT", table: str = "users") -> str:
    """Give the SQL that makes a trigger."""
    return _TRIGGER.format(deed=deed, when=when, table=table)
