"""A JSON parser as strict as RFC 8259 and I-JSON (RFC 7493), unlike Python's `json`.

Python's parser recurses: its maximum depth depends on the interpreter, and a small stack crashes
the process. The depth is therefore checked before parsing.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import Any

MAX_DEPTH = 100
"""Nested arrays and objects: more than real data has, less than any stack can hold."""

_NO_BRACKETS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class InvalidJson(ValueError):
    """The text is not valid JSON; the message is a sentence that quotes none of it."""


def loads(data: bytes | str) -> Any:
    """Parse JSON; bytes must be UTF-8.

    Raises InvalidJson for other encodings, a byte order mark, duplicate member names, NaN,
    Infinity, numbers out of range, nesting deeper than MAX_DEPTH, and anything after the value.
    """
    try:
        if isinstance(data, str):
            data = data.encode("utf-8")
        text = data.decode("utf-8")
    except UnicodeError:
        raise InvalidJson("The JSON is not in UTF-8.") from None
    if text.startswith("\ufeff"):
        raise InvalidJson("The JSON begins with a byte order mark.")
    if depth(data) > MAX_DEPTH:
        raise InvalidJson("The JSON is nested too deeply.")
    try:
        return _DECODER.decode(text)
    except InvalidJson:
        raise
    except ValueError:  # JSONDecodeError, and integers of more than 4,300 digits
        raise InvalidJson("The JSON cannot be parsed.") from None


def depth(data: bytes) -> int:
    """Give the nesting depth of UTF-8 JSON, or an upper bound if that is at most MAX_DEPTH.

    For invalid JSON, never less than the depth that a parser reaches before it refuses the text.
    Takes linear time and does not recurse.
    """
    most = data.count(b"[") + data.count(b"{")
    if most <= MAX_DEPTH:
        return most
    # Without escapes every quote begins or ends a string, whose content is ignored.
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    quoted = unescaped.translate(None, _NO_BRACKETS)
    for quotes in (b'"' * 16, b'"' * 2):  # Faster: most strings hold no bracket.
        quoted = quoted.replace(quotes, b"")
    brackets = b"".join(quoted.split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, brackets), initial=0))


def check_text(value: object) -> None:
    """Refuse invalid characters anywhere in a parsed value.

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
