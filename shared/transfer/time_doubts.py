"""Times that a source can hardly mean. They are brought as they stand, and a plan tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from shared.formats.timestamps import has_offset
from shared.model.user_record import COLUMNS, UserRecord

BEFORE_1990, IN_THE_FUTURE, NO_OFFSET = "before_1990", "in_the_future", "no_offset"
_DAY = 86_400
_SECONDS_TO_2000 = 946_684_800
_YEAR_1990 = int((datetime(1990, 1, 1, tzinfo=UTC).timestamp() - _SECONDS_TO_2000) * 1_000_000)
_CREATED, _UPDATED = COLUMNS["created_at"].members, COLUMNS["updated_at"].members


class TimeDoubts:
    """Counts rows by what is odd about their times, and notes the first of each."""

    def __init__(self, now: float) -> None:
        """`now` is in seconds since 1970. A clock may be a day ahead of it."""
        self._latest = int((now + _DAY - _SECONDS_TO_2000) * 1_000_000)
        self.found: dict[str, dict[str, int]] = {}
        """By doubt: how many `rows`, and the number of the `first`."""

    def look_at(self, number: int, row: dict[str, Any], record: UserRecord) -> None:
        """Look at a row that can be imported."""
        created, updated = record.created_at, record.updated_at
        if self._is_usual(created, row, _CREATED) and self._is_usual(updated, row, _UPDATED):
            return  # As nearly all are.
        doubts = set()
        for moment, members in ((created, _CREATED), (updated, _UPDATED)):
            if moment is None:
                continue
            if moment < _YEAR_1990:
                doubts.add(BEFORE_1990)
            elif moment > self._latest:
                doubts.add(IN_THE_FUTURE)
            text = _given(row, members)
            if type(text) is str and not has_offset(text):
                doubts.add(NO_OFFSET)
        for doubt in doubts:
            found = self.found.setdefault(doubt, {"rows": 0, "first": number})
            found["rows"] += 1

    def _is_usual(self, moment: int | None, row: dict[str, Any], members: Sequence[str]) -> bool:
        if moment is None:
            return True
        text = _given(row, members)
        has_zone = type(text) is not str or text[-1] == "Z"
        return has_zone and _YEAR_1990 <= moment <= self._latest


def _given(row: dict[str, Any], members: Sequence[str]) -> Any:
    camel, snake = members
    text = row.get(camel)
    return row[snake] if text is None else text
