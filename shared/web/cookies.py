"""Cookies as browsers and proxies send them, and as browsers keep them. Knows no web framework."""

from __future__ import annotations

from collections.abc import Sequence

MAX_VALUES = 20
"""Values of one name that are looked at: browsers keep few, and each one costs a signature."""


def in_one_field(fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join several fields `COOKIE` with semicolons (RFC 6265, section 5.4; RFC 9113, 8.2.3).

    A server that joins them with commas, as it does other fields, makes one value of two cookies.
    """
    values = [value for name, value in fields if name == "COOKIE"]
    if len(values) < 2:
        return list(fields)
    others = [field for field in fields if field[0] != "COOKIE"]
    return [*others, ("COOKIE", "; ".join(values))]
