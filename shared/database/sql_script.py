"""Takes an SQL script apart: the line that the server refused, and where statements begin.

A script is sent whole, so that only the server decides where a statement ends. For an error while
one runs it gives no position; but it has confirmed those that were completed, and they are counted.
The rules for tokens are PostgreSQL's (documentation, 4.1), `standard_conforming_strings` being on.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""--[^\n]* | /\*(?:(?>/\*.*?\*/)|(?!/\*).)*?\*/         # comments, one inside another
      | [eE]'(?:\\.|''|[^\\'])*' | '[^']*' | "[^"]*"         # a doubled quote makes two of these
      | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
      | [^\W\d][\w$]* | \s+ | .""",
    re.DOTALL | re.VERBOSE,
)


def starts(sql: str) -> list[int]:
    """Give the offset at which each statement starts."""
    found: list[int] = []
    depth, inside = 0, False
    for match in _TOKEN.finditer(sql):
        word = match[0].upper()
        if word.isspace() or word.startswith(("--", "/*")):
            continue
        # As psql does: the body of a rule stands in parentheses, that of a function may stand
        # between BEGIN ATOMIC and END, and only in there a CASE needs to be told from it.
        if word in ("(", "ATOMIC") or (word == "CASE" and depth):
            depth += 1
        elif word in (")", "END") and depth:
            depth -= 1
        if word == ";" and not depth:
            inside = False
        elif not inside:
            inside = True
            found.append(match.start())
    return found


def line_of_error(sql: str, completed: int, position: int | None) -> int | None:
    """Give the line of an error, from 1.

    `position` is the server's, a character from 1. Without it the error is in the statement after
    those that were completed; None if there is none, so that no wrong line is named.
    """
    if position is not None:
        return line_at(sql, position - 1)
    found = starts(sql)
    return line_at(sql, found[completed]) if completed < len(found) else None


def line_at(sql: str, offset: int) -> int:
    """Give the line of an offset, from 1."""
    return sql.count("\n", 0, offset) + 1
