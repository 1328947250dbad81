"""SQL that names itself, for the log and the metrics, and its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool | None
"""What a parameter may be. It is sent as text, and the SQL says what it means there."""

_PARAMETER = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|::|:([a-z]\w*)""")
"""A parameter, or else what a colon may stand in. A doubled quote makes two literals of one."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, with `:name` for a parameter."""

    name: str
    sql: str
    text: str = field(init=False, repr=False)
    """What is sent: with `$1`, `$2` … in the order in which the names first appear."""
    parameters: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Give each parameter its number."""
        numbers: dict[str, str] = {}

        def number(match: re.Match[str]) -> str:
            name = match[1]
            return numbers.setdefault(name, f"${len(numbers) + 1}") if name else match[0]

        object.__setattr__(self, "text", _PARAMETER.sub(number, self.sql))
        object.__setattr__(self, "parameters", tuple(numbers))

    def values(self, given: Mapping[str, Value]) -> tuple[Value, ...]:
        """Put values in the order of `text`. Raises TypeError where one is missing or unknown."""
        if unknown := given.keys() - self.parameters:
            raise TypeError(f"{self.name} has no parameter {', '.join(sorted(unknown))}")
        if missing := [name for name in self.parameters if name not in given]:
            raise TypeError(f"{self.name} lacks its parameter {', '.join(missing)}")
        return tuple(given[name] for name in self.parameters)
