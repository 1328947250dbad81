"""Database health: a probe, the connections, the outage, and whose clock is wrong."""

from __future__ import annotations

import time
from datetime import datetime

from shared.database.pool import Database, PoolCounts
from shared.observe import log
from shared.store.contract import DatabaseHealth, DatabaseStatus, FallbackStatus
from shared.store.postgres import statements

HEALTH_TIMEOUT = 3.0
"""Seconds that a health probe waits, all in all."""
SKEW_SECONDS = 5.0
"""By which the database's clock and the one here may differ before an operator is told."""
SKEW_PAUSE = 600.0
"""Seconds between two warnings of that."""


class PostgresStatus(DatabaseStatus):
    """A database, and nothing that serves while it is away."""

    def __init__(self, database: Database) -> None:
        """Ask nothing yet."""
        self._database = database
        self._next_warning = float("-inf")

    def health(self) -> DatabaseHealth:
        began = time.time()
        ((timestamp, version),) = self._database.execute_within(HEALTH_TIMEOUT, statements.HEALTH)
        self.compare_clocks(began, timestamp)
        return DatabaseHealth(timestamp, f"PostgreSQL {version}", self.pool())

    def pool(self) -> PoolCounts:
        return self._database.counts()

    def fallback(self) -> FallbackStatus:
        breaker = self._database.breaker
        return FallbackStatus("off", breaker.since, breaker.seconds)

    def compare_clocks(self, began: float, at: datetime) -> None:
        """Warn, now and then, where the clock here is wrong by the database's.

        `at` is the database's time in a round trip that began at a time by the clock here.
        """
        ahead, behind = began - at.timestamp(), at.timestamp() - time.time()
        seconds, now = max(ahead, behind), time.monotonic()
        if seconds <= SKEW_SECONDS or now < self._next_warning:
            return
        self._next_warning = now + SKEW_PAUSE
        order = "ahead of" if ahead > 0 else "behind"
        log.write("WARNING", f"The clock here is {seconds:.0f} seconds {order} the database's")
