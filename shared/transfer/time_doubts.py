"""Times that a source can hardly mean. They are brought as they stand, and a plan tells of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from shared.formats.timestamps import has_offset
from shared.model.user_record import COLUMNS, UserRecord

BEFORE_1990, IN_THE_FUTURE, NO_OFFSET = "before_1990", "in_the_future", "no_offset"
_DAY = 86_400
_SECONDS_TO_2000 = 946_684_800
_YEAR_1990 = int((datetime(1990, 1, 1, tzinfo=UTC).timestamp() - _SECONDS_TO_2000) * 1_000_000)
_MEMBERS = (COLUMNS["created_at"].members, COLUMNS["updated_at"].members)


class TimeDoubts:
    """Counts rows by what is odd about their times, and notes the first of each."""

    def __init__(self, now: float) -> None:
        """`now` is in seconds since 1970. A clock may be a day ahead of it."""
        self._latest = int((now + _DAY - _SECONDS_TO_2000) * 1_000_000)
        self.found: dict[str, dict[str, int]] = {}
        """By doubt: how many `rows`, and the number of the `first`."""

    def look_at(self, number: int, row: dict[str, Any], record: UserRecord) -> None:
        """Look at a row that can be imported."""
        doubts = set()
        moments = record.created_at, record.updated_at
        for moment, (camel, snake) in zip(moments, _MEMBERS, strict=True):
            if moment is None:
                continue
            text = row.get(camel)
            if text is None:
                text = row[snake]
            has_zone = type(text) is not str or text[-1] == "Z"
            if has_zone and _YEAR_1990 <= moment <= self._latest:
                continue  # As nearly all are.
            if moment < _YEAR_1990:
                doubts.add(BEFORE_1990)
            elif moment > self._latest:
                doubts.add(IN_THE_FUTURE)
            if not has_zone and not has_offset(text):
                doubts.add(NO_OFFSET)
        for doubt in doubts:
            found = self.found.setdefault(doubt, {"rows": 0, "first": number})
            found["rows"] += 1
