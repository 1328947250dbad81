"""Statistics for operators: users, and events of the audit, by whole days in UTC."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

DAY = 86400
WEEK, MONTH = 7 * DAY, 30 * DAY
"""Seconds for which a user counts as new."""
MAX_DAYS = 366
"""Of a window."""


@dataclass(frozen=True, slots=True)
class Window:
    """A number of whole days that ends with the day of `now`."""

    days: int
    now: float

    @property
    def start(self) -> float:
        """The beginning of the first day."""
        return self.end - self.days * DAY

    @property
    def end(self) -> float:
        """The end of the last day."""
        return (self.now // DAY + 1) * DAY

    def each_day(self) -> list[date]:
        """Give the days in their order."""
        first = datetime.fromtimestamp(self.start, UTC).date()
        return [first + timedelta(days=number) for number in range(self.days)]


@dataclass(slots=True)
class Events:
    """Counts of events in the audit."""

    logins: Counter[tuple[date, str]] = field(default_factory=Counter)
    """By day and the user's provider."""
    failed_logins: Counter[date] = field(default_factory=Counter)
    """By day, whatever the reason."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """By kind."""
    login_failures: Counter[str] = field(default_factory=Counter)
    """By reason."""
    login_hours: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Logins by day of the week, Monday being 0, and hour."""


@dataclass(slots=True)
class Statistics:
    """All counts. `users…` are of all time, the others of the window."""

    users: Counter[str] = field(default_factory=Counter)
    """By provider."""
    users_last_week: int = 0
    users_last_month: int = 0
    registrations: Counter[tuple[date, str]] = field(default_factory=Counter)
    """By day and provider."""
    events: Events | None = None
    """None where there is no audit."""
    as_of: float | None = None
    """When they were so, in seconds since 1970, of a replica; None where they are so now."""

    def count_user(self, window: Window, provider: str, created_at: datetime | None) -> None:
        """Count a user; `created_at` is None if unknown."""
        self.users[provider] += 1
        if created_at is None:
            return
        seconds = created_at.timestamp()
        self.users_last_week += window.now - WEEK <= seconds < window.end
        self.users_last_month += window.now - MONTH <= seconds < window.end
        if window.start <= seconds < window.end:
            self.registrations[created_at.date(), provider] += 1
