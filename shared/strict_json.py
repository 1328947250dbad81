"""JSON as RFC 8259 and I-JSON (RFC 7493) mean it, where Python's `json` is more generous."""

from __future__ import annotations

import json
import math
from typing import Any


class InvalidJson(ValueError):
    """The text is not acceptable JSON; the message is a sentence that quotes none of it."""


def loads(data: bytes) -> Any:
    """Parse UTF-8 JSON.

    Raises InvalidJson for other encodings, a byte order mark, duplicate member names, NaN,
    Infinity, numbers out of range, nesting that is too deep, and anything after the value.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJson("The JSON is not in UTF-8.") from None
    if text.startswith("\ufeff"):
        raise InvalidJson("The JSON begins with a byte order mark.")
    try:
        return _DECODER.decode(text)
    except InvalidJson:
        raise
    except RecursionError:
        raise InvalidJson("The JSON is nested too deeply.") from None
    except ValueError:  # JSONDecodeError, and integers of more than 4,300 digits
        raise InvalidJson("The JSON cannot be parsed.") from None


def check_text(value: object) -> None:
    """Refuse, anywhere in a parsed value, what no text may hold.

    Raises InvalidJson for NUL, which PostgreSQL cannot store, and for lone surrogates, which
    UTF-8 cannot encode.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise InvalidJson("The JSON holds a NUL character.")
            if any("\ud800" <= character <= "\udfff" for character in item):
                raise InvalidJson("The JSON holds half of a surrogate pair.")
        elif isinstance(item, dict):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidJson("The JSON names a member twice.")
    return members


def _constant(name: str) -> float:
    raise InvalidJson(f"{name} is not JSON.")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("The JSON holds a number that is too large.")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_constant, parse_float=_float
)
