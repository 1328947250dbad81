"""Constraints and triggers as an operator may have added them, each by the name `guard`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

_TRIGGER = """
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {deed} END $$;
CREATE TRIGGER guard {when} ON {table} FOR EACH ROW EXECUTE FUNCTION guard()
"""


def trigger(deed: str, when: str = "BEFORE INSERT", table: str = "users") -> str:
    """Give the SQL that makes a trigger."""
    return _TRIGGER.format(deed=deed, when=when, table=table)


def cases(names: Iterable[str], always: Iterable[str]) -> list[Any]:
    """Give cases by name, of which some are run always, and the others are `long`."""
    always = frozenset(always)
    return [
        pytest.param(name, marks=() if name in always else pytest.mark.long, id=name)
        for name in names
    ]
