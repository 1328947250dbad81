"""How a value is read from the text that PostgreSQL writes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.formats.strict_json import loads

_BEYOND = re.compile(r"-?infinity|\d{4,6}-\d\d-\d\d [\d:.]+[+-][\d:]+( BC)?")
"""Times that datetime cannot hold."""


def _moment(text: str) -> datetime | str:
    """Read a timestamptz, or leave it as it is where datetime cannot hold it.

    Raises ValueError for any other style than ISO, in which day and month could be confused.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if _BEYOND.fullmatch(text):
            return text
        raise


OURS: dict[int, Callable[[str], Any]] = {114: loads, 3802: loads, 1184: _moment}
"""By the OID of the type, where pg8000 reads otherwise: json, jsonb and timestamptz."""
