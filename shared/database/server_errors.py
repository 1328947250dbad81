"""What an error of the server's says, as far as a log may have it: its objects, and its own text.

The text of an error that a function raised (a trigger, or what one calls) is its author's: it may
quote a row, and borrow any SQLSTATE. Of such an error only the function is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from shared.database import sqlstate

MAX_LENGTH = 200
"""Characters of a text or a name."""

_OBJECTS = {"s": "schema", "t": "table", "c": "column", "d": "datatype", "n": "constraint"}
"""The fields of the protocol that name what an error is about."""
_RAISED = ("exec_stmt_raise", "exec_stmt_assert")
"""The routines of PL/pgSQL's RAISE and ASSERT."""
_CHECKS_RIGHTS = "aclcheck_error"
"""The routine that tells of an object to which a right is lacking, whoever asked for it."""
_SIGNATURE = re.compile(r"[^\s()]+\([^()]*\)")
_OURS = re.compile(r"[^\n]*\binline_code_block\b(?!\()[^\n]*")
"""The context of a DO block, as migrations have them, that nothing of another's was called in."""


def message(fields: Mapping[str, str]) -> str:
    """Give the primary message if it is PostgreSQL's own and quotes no value, else nothing."""
    code = fields.get("C", "")
    if code == sqlstate.INSUFFICIENT_PRIVILEGE and fields.get("R") == _CHECKS_RIGHTS:
        return fields.get("M", "")[:MAX_LENGTH]  # It names an object that is there.
    quotes = code.startswith(sqlstate.CLASS_DATA_EXCEPTION) and code != sqlstate.STRING_TOO_LONG
    if quotes or _is_foreign(fields):
        return ""
    return fields.get("M", "")[:MAX_LENGTH]


def objects(fields: Mapping[str, str]) -> dict[str, str]:
    """Name schema, table, column, data type and constraint, and the routine that raised it."""
    found = {
        name: fields[field][:MAX_LENGTH] for field, name in _OBJECTS.items() if field in fields
    }
    # The last line is of the function that the statement itself had called.
    last = fields.get("W", "").rpartition("\n")[2]
    if _is_foreign(fields) and "PL/" in last and (match := _SIGNATURE.search(last)):
        found["routine"] = match[0][:MAX_LENGTH]
    return found


def is_raised(fields: Mapping[str, str]) -> bool:
    """Tell whether a function raised it: then its SQLSTATE says nothing of the server."""
    return fields.get("R") in _RAISED


def is_fatal(fields: Mapping[str, str]) -> bool:
    """Tell whether the server ends the connection with it."""
    return fields.get("V", fields.get("S")) != "ERROR"


def _is_foreign(fields: Mapping[str, str]) -> bool:
    context = fields.get("W")
    return context is not None and not _OURS.fullmatch(context)
