"""What a row of another system holds under a name, or InvalidRow: nothing of it is trusted."""

from __future__ import annotations

import json
import re
from typing import Any

from shared.formats.strict_json import InvalidJson, loads
from shared.formats.timestamps import from_iso, from_milliseconds
from shared.model.user_record import InvalidRow

Row = dict[str, Any]

_TRUE = frozenset({"1", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "f", "false", "n", "no"})
_DIGITS = re.compile(r"[0-9]{9,15}")
_OFFSET_APART = re.compile(r"(.+) (Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?)")
_MAX_SECONDS = 100_000_000_000
"""A larger number is one of milliseconds: this one would be in the year 5138."""

_MAX_NUMBER = 10**15


def text(row: Row, *names: str) -> str | None:
    """Give the first of these members that is there and is not blank."""
    for name in names:
        value = row.get(name)
        if type(value) is int:
            value = str(value)
        if value is None or value == "":
            continue
        if type(value) is not str:
            raise InvalidRow(f"The {name} is not a text.")
        if value.strip():
            return value
    return None


def flag(row: Row, *names: str) -> bool | None:
    """Give the first of these members that is there as yes or no."""
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        word = str(value).strip().lower() if isinstance(value, str | int) else ""
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise InvalidRow(f"The {name} is neither true nor false.")
    return None


def moment(row: Row, *names: str) -> str | int | None:
    """Give the first of these times that is there, in a form that a users file may have.

    Numbers are milliseconds or seconds since 1970, also where they are written as texts; a time
    without an offset is in UTC. What is no time is given as it stands, for the record to refuse.
    """
    for name in names:
        value = row.get(name)
        if value is None or value == "" or (isinstance(value, str) and value[:10] == "0000-00-00"):
            continue
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            value = int(value)
        if type(value) is int or type(value) is float:
            if not -_MAX_NUMBER < value < _MAX_NUMBER:
                raise InvalidRow(f"The {name} is not a time.")
            return round(value * 1000) if 0 < value < _MAX_SECONDS else round(value)
        if not isinstance(value, str):
            raise InvalidRow(f"The {name} is not a time.")
        value = value.strip()
        if apart := _OFFSET_APART.fullmatch(value):
            value = apart[1] + ("Z" if apart[2] == "UTC" else apart[2])
        has_offset = value.endswith(("Z", "z")) or re.search(r"[+-][0-9:]+$", value[10:])
        return value if has_offset or len(value) < 11 else f"{value}Z"
    return None


def seconds(time: str | int | None) -> float | None:
    """Give seconds since 1970 of what `moment` gave; None for no time."""
    found = from_milliseconds(time) if isinstance(time, int) else from_iso(time)
    return None if found is None else found.timestamp()


def objects(row: Row, name: str) -> list[Row]:
    """Give a member that is a list of objects, or JSON of one. Raises InvalidRow."""
    return _list(row, name, dict, "objects")


def texts(row: Row, name: str) -> list[str]:
    """Give a member that is a list of texts, or JSON of one. Raises InvalidRow."""
    return _list(row, name, str, "texts")


def _list(row: Row, name: str, kind: type, called: str) -> list[Any]:
    value = _parsed(row, name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(it, kind) for it in value):
        raise InvalidRow(f"The {name} is not a list of {called}.")
    return value


def members(row: Row, name: str) -> Row:
    """Give a member that is an object, or JSON of one. Raises InvalidRow."""
    value = _parsed(row, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRow(f"The {name} is not an object.")
    return value


def full_name(row: Row, first: str, last: str) -> str | None:
    """Put a first and a last name together."""
    return " ".join(filter(None, (text(row, first), text(row, last)))) or None


def _parsed(row: Row, name: str) -> Any:
    value = row.get(name)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return loads(value)
    except InvalidJson:
        raise InvalidRow(f"The {name} is not JSON.") from None


def as_key(value: object) -> str:
    """Write what one row is named by in another, a number, a text or a list of them, as a text."""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: object) -> str:
    """Write what a source holds. Raises InvalidRow for what is no value in it."""
    return json.dumps(value, sort_keys=True, default=_refuse)


def _refuse(value: object) -> object:
    raise value if isinstance(value, InvalidRow) else InvalidRow("It holds what is no JSON.")
