"""A standby that answers some of the reads, where it can say as of when, instead of the primary.

Whoever reads asks for it by `Replica.reading`, and the primary where that raises `PassedOver`: the
replica is away, cancelled the read in favour of its replay, or is not what it is taken for. It is
never a reason for an error, and has nothing to do with the primary's pool and breaker.

It is believed if it is in recovery, of the same system, timeline, database and table of users as
the primary, which is asked for these just before, together with its position in the WAL. What is
read has all that was committed by the time that is told (docs/decisions/0037-a-read-replica.md).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from shared.database import sqlstate
from shared.database.connection import Connection
from shared.database.faults import GARBLED
from shared.database.pool import Database
from shared.database.session import STATEMENT_GRACE
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement
from shared.database.url import DatabaseUrl
from shared.errors import StoreFault, StoreUnavailable, StoreUnreachable, TransferRefused
from shared.observe import log, metrics, request_context

START_SECONDS = 3.0
"""To connect and to say what it is, at most; where `timeout` is short, a fifth of it."""
PAUSE = 30.0
"""Seconds for which a replica that failed is passed over; then one read tries it."""
MARK_PAUSE = 10.0
"""Seconds for which the primary is not asked again."""
MARGIN = 1.0
"""By which a commit may come into the WAL after the time that it bears."""

Outcome = Literal["away", "busy", "conflict", "old", "paused", "slow", "unfit", "unverified"]

_CONFLICT = (
    sqlstate.SERIALIZATION_FAILURE,
    sqlstate.DEADLOCK_DETECTED,
    sqlstate.DATABASE_DROPPED,
)
"""What a standby says to a read that stands in the way of its replay."""
_IDENTITY = """
    (SELECT system_identifier::text FROM pg_control_system()),
    (SELECT oid::text FROM pg_database WHERE datname = current_database()),
    to_regclass('users')::oid::text"""
# The timeline of what is being written: after a promotion the last checkpoint is still of the old.
_MARK = f"""
SELECT {_IDENTITY}, ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int,
    extract(epoch FROM CURRENT_TIMESTAMP)::text, pg_current_wal_flush_lsn()::text
"""  # noqa: S608  # constants
_SIGHT = Statement(
    "replica",
    f"""
SELECT {_IDENTITY}, greatest(
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery())),
    pg_is_in_recovery(), extract(epoch FROM pg_last_xact_replay_timestamp())::text,
    coalesce(pg_last_wal_replay_lsn() >= :position::pg_lsn, false)
""",  # noqa: S608  # likewise
    is_prepared=False,
)


class PassedOver(Exception):
    """The primary has to answer instead."""

    def __init__(self, outcome: Outcome, cause: str) -> None:
        """`cause` is for the operator."""
        self.outcome, self.cause = outcome, cause
        super().__init__(cause)


class Reading(NamedTuple):
    """A connection to the replica, and as of when it is read, in seconds since the Unix epoch."""

    connection: Connection
    as_of: float


class _Identity(NamedTuple):
    """What a primary and its replicas have in common."""

    system: str
    database: str
    users: str | None
    """The table that the search path leads to; None where there is none."""
    timeline: int


class _Mark(NamedTuple):
    """The primary, as it was last seen."""

    identity: _Identity
    at: float
    """Just before, by the clock here, in seconds since the Unix epoch."""
    clock: float
    """Seconds by which the clock here was ahead of the primary's, or a little less."""
    position: str
    """By which everything had been written that was committed before `at`."""


Report = Callable[[str, PassedOver], object]
"""Is told what read the replica was passed over for, and why; not while it is paused."""


def log_passed_over(read: str, passed_over: PassedOver) -> None:
    """Write it to the log."""
    log.write(
        "WARNING",
        "The primary answers instead of the read replica",
        read=read,
        outcome=passed_over.outcome,
        cause=passed_over.cause,
    )


class Replica:
    """The database of DATABASE_READ_URL. Safe to share between threads."""

    def __init__(
        self,
        url: DatabaseUrl,
        settings: DatabaseSettings,
        primary: Database,
        report: Report = log_passed_over,
    ) -> None:
        """Open nothing yet."""
        self._database = Database(url, settings._replace(endpoint=None))
        self._primary = primary
        self._report = report
        self._start_seconds = min(START_SECONDS, settings.timeout / 5)
        self._statement_seconds = settings.statement_timeout + STATEMENT_GRACE
        # Reads are rare, and each has a connection of its own: idle ones would keep a compute
        # awake, and behind a balancer's name lead to another server than the one that was seen.
        self._places = threading.BoundedSemaphore(settings.max_connections)
        self._changing, self._asking = threading.Lock(), threading.Lock()
        self._is_doubtful = False
        self._paused_until = -math.inf
        self._mark: _Mark | None = None
        self._mark_asked = -math.inf
        self._doubt = "it is away"

    @contextmanager
    def reading(self, read: str, *, not_before: float = -math.inf) -> Iterator[Reading]:
        """Give a connection, closed after, if what is read is at least as of `not_before`.

        It has the time that a statement has, and leaves the primary as much of the request's, or
        half of it where that is less; who may take longer sets another deadline. Raises
        PassedOver, also for what goes wrong in the block: only the replica is to be asked there.
        """
        began = time.monotonic()
        deadline = request_context.current(self._database.timeout).deadline
        limit = deadline - min(self._statement_seconds, (deadline - began) / 2)
        outcome = "interrupted"
        try:
            self._admit()
            with self._place(limit):
                mark = self._current_mark(limit)
                with self._database.direct_connection(self._soon(limit)) as connection:
                    as_of = _as_of(connection, mark, not_before)
                    end = time.monotonic() + self._statement_seconds
                    connection.set_deadline(min(limit, end))
                    yield Reading(connection, as_of)
            outcome = "answered"
            self._resume()
        except PassedOver as error:
            outcome = self._end(read, error)
            raise
        except (StoreUnavailable, StoreFault, TransferRefused, *GARBLED) as error:
            passed_over = _passed_over(error)
            outcome = self._end(read, passed_over)
            raise passed_over from error
        finally:
            metrics.REPLICA_READS.record(time.monotonic() - began, read, outcome)

    def _end(self, read: str, passed_over: PassedOver) -> Outcome:
        if passed_over.outcome in ("away", "slow", "unfit"):
            with self._changing:
                self._is_doubtful, self._paused_until = True, time.monotonic() + PAUSE
        elif passed_over.outcome in ("conflict", "old"):
            self._resume()  # It has answered.
        if passed_over.outcome != "paused":
            self._report(read, passed_over)
        return passed_over.outcome

    def _admit(self) -> None:
        with self._changing:
            now = time.monotonic()
            if now < self._paused_until:
                raise PassedOver("paused", "it failed a moment ago")
            if self._is_doubtful:  # The others need not wait with the one who finds out.
                self._paused_until = now + PAUSE

    def _resume(self) -> None:
        with self._changing:
            was_doubtful, self._is_doubtful = self._is_doubtful, False
            self._paused_until = -math.inf
        if was_doubtful:
            log.write("INFO", "The read replica answers again")

    @contextmanager
    def _place(self, limit: float) -> Iterator[None]:
        if not self._places.acquire(timeout=max(0.0, self._soon(limit) - time.monotonic())):
            raise PassedOver("busy", "other reads have all of its connections")
        try:
            yield
        finally:
            self._places.release()

    def _soon(self, limit: float) -> float:
        """Give until when something must have begun."""
        return min(limit, time.monotonic() + self._start_seconds)

    def _current_mark(self, limit: float) -> _Mark:
        """Give what is known of the primary; while it is away, what was known before."""
        with self._asking:
            if time.monotonic() - self._mark_asked >= MARK_PAUSE:
                self._ask_primary(limit)
        if self._mark is None:
            raise PassedOver(
                "unverified",
                f"the primary does not tell whose replica it has to be: {self._doubt}",
            )
        return self._mark

    def _ask_primary(self, limit: float) -> None:
        """Look at the primary, outside its pool; where it is away, nothing changes."""
        self._mark_asked = time.monotonic()
        at = time.time()
        try:
            self._primary.breaker.check()
            ((*identity, clock, position),) = self._primary.ask_apart(self._soon(limit), _MARK)
            self._mark = _Mark(_Identity(*identity), at, at - float(clock), position)
        except (StoreUnavailable, StoreFault) as error:
            self._doubt = str(error)


def _as_of(connection: Connection, mark: _Mark, not_before: float) -> float:
    """Tell as of when it is, by the clock here. Raises PassedOver where it is found wanting."""
    rows = connection.execute(_SIGHT, position=mark.position)
    try:
        ((*identity, is_standby, replayed_at, has_all),) = rows
        here = _Identity(*identity)
        known = [float(replayed_at) + mark.clock] if replayed_at else []
    except (TypeError, ValueError):
        known = [math.nan]
    if not all(map(math.isfinite, known)):
        raise PassedOver("unfit", "its answer is none of PostgreSQL's")
    _check(here, mark.identity, is_standby=is_standby)
    if has_all:
        known.append(mark.at)
    if not known:
        raise PassedOver("old", "it has replayed nothing yet that tells as of when it is")
    now = time.time()
    as_of = min(max(known), now) - MARGIN
    if as_of < not_before:
        raise PassedOver("old", f"it is {now - as_of:.0f} s behind, which is too old for this")
    return as_of


def _check(here: _Identity, there: _Identity, *, is_standby: bool) -> None:
    """Raise PassedOver where it is no replica of the primary."""
    if not is_standby:
        problem = "it is no standby: it takes writes of its own, as after a promotion"
    elif here.system != there.system:
        problem = "it is a replica of another server than that of DATABASE_URL"
    elif here.timeline != there.timeline:
        problem = (
            f"it is on timeline {here.timeline}, and the server of DATABASE_URL on "
            f"{there.timeline}: one of them follows a server that was promoted"
        )
    elif here.database != there.database:
        problem = "it is another database of the server than that of DATABASE_URL"
    elif here.users != there.users:
        problem = (
            "its table users is not that of DATABASE_URL: the role has another search path, or "
            "the migrations have not been replayed yet"
        )
    else:
        return
    raise PassedOver("unfit", problem)


def _passed_over(error: Exception) -> PassedOver:
    cause = str(error)
    if cause.startswith(_CONFLICT):
        return PassedOver("conflict", cause)
    if cause.startswith(sqlstate.QUERY_CANCELED):
        return PassedOver("slow", cause)
    if isinstance(error, StoreUnreachable):
        return PassedOver("away", cause)
    if isinstance(error, StoreUnavailable | StoreFault | TransferRefused):
        return PassedOver("unfit", cause)
    return PassedOver("unfit", "its answer is none of PostgreSQL's")
