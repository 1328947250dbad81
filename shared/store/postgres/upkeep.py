"""What no request waits for: deleting what has expired, counting hours, and correcting keys."""

from __future__ import annotations

import time

from shared.database.pool import Database
from shared.errors import StoreTimeout
from shared.store.postgres import email_keys, statements, statistics


class Upkeep:
    """The upkeep of a database, bounded as requests are: what is left is done the next time."""

    def __init__(self, database: Database, audit_seconds: float) -> None:
        """Do nothing yet. Events of the audit are kept for so long."""
        self._database = database
        self._audit_seconds = audit_seconds
        self._hours_at_once = statistics.MAX_HOURS

    def clean_up(self) -> bool:
        """Delete from each table what has expired, and count the hours that are over.

        Tells if there may be more.
        """
        ((most,),) = self._database.execute(statements.CLEAN_UP, audit_seconds=self._audit_seconds)
        self._correct_keys()
        is_behind = self._count_hours()
        return int(most) == statements.MAX_DELETED or is_behind

    def _count_hours(self) -> bool:
        """Count what is due of the hours; tell if there may be more.

        Where that takes too long, half as many are counted the next time: a day of hours that was
        left lying might else never be counted.
        """
        most = self._hours_at_once
        try:
            ((hours,),) = self._database.execute(statistics.ROLL_UP, hours=most)
        except StoreTimeout:
            self._hours_at_once = max(1, most // 2)
            return most > 1
        return int(hours) == most

    def _correct_keys(self) -> None:
        """Make the keys of those whom others have added, where SQL makes none or no trigger did."""
        ((is_pending,),) = self._database.execute(email_keys.IS_PENDING)
        if is_pending:
            self._database.execute(email_keys.ENLIST_LOST)
            deadline = time.monotonic() + self._database.timeout
            with self._database.direct_connection(deadline) as connection:
                email_keys.correct(connection, deadline)
