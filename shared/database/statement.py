"""SQL that names itself, for the log and the metrics, and its parameters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property

Value = str | int | float | bool | None
"""What a parameter may be. It is sent as text, and the SQL says what it means there."""

_PARAMETER = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|::|:([a-z]\w*)""")
"""A parameter, or else what a colon may stand in. A doubled quote makes two literals of one."""


class Statement:
    """One statement, with `:name` for a parameter.

    What is made of it is made at its first use: an instance that starts uses few of them.
    """

    def __init__(self, name: str, sql: str, *, is_prepared: bool = True) -> None:
        """`name` is for the log and the metrics."""
        self.name, self.sql = name, sql
        self.is_prepared = is_prepared
        """Whether requests parse and plan it once a connection, for any values of parameters."""

    @cached_property
    def _numbered(self) -> tuple[str, tuple[str, ...]]:
        numbers: dict[str, str] = {}

        def number(match: re.Match[str]) -> str:
            name = match[1]
            return numbers.setdefault(name, f"${len(numbers) + 1}") if name else match[0]

        return _PARAMETER.sub(number, self.sql), tuple(numbers)

    @property
    def text(self) -> str:
        """What is sent: with `$1`, `$2` … in the order in which the names first appear."""
        return self._numbered[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in this order."""
        return self._numbered[1]

    @cached_property
    def key(self) -> bytes:
        """The name under which it is prepared: of no other text, whoever else uses the database."""
        return f"aicoder_{hashlib.sha256(self.text.encode()).hexdigest()[:32]}".encode()

    def values(self, given: Mapping[str, Value]) -> tuple[Value, ...]:
        """Put values in the order of `text`. Raises TypeError where one is missing or unknown."""
        names = self.parameters
        if missing := [name for name in names if name not in given]:
            raise TypeError(f"{self.name} lacks its parameter {', '.join(missing)}")
        if len(given) > len(names):
            unknown = ", ".join(sorted(given.keys() - names))
            raise TypeError(f"{self.name} has no parameter {unknown}")
        return tuple(given[name] for name in names)
