"""JSON that the database makes of several rows, as one column of text."""

from __future__ import annotations

from typing import Any

from shared.errors import StoreRefused
from shared.formats.strict_json import InvalidJson, loads


def parse_json(column: str | None) -> Any:
    """Parse what `json_agg` and the like gave; NULL, which they give of no rows, is an empty list.

    Raises StoreRefused where that was no JSON of ours, as only a server that lies gives it.
    """
    try:
        return [] if column is None else loads(column)
    except InvalidJson as error:
        raise StoreRefused(cause=f"the server gave a column that is no JSON: {error}") from error
