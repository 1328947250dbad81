"""The database as the store sees it: a few connections, leased to one request at a time.

A connection goes back among the idle ones only after an answer that was read to its end, is used
again only while it is young, and is closed after anything else. What is worth another attempt gets
one here; `connection` and `connecting` tell which faults are. Where the database is away, a breaker
keeps everybody but its prober from asking.
"""

from __future__ import annotations

import functools
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from shared.database.breaker import Breaker
from shared.database.connecting import connect, dial, make_tls_context
from shared.database.connection import MAX_TRANSFER_ANSWER, Connection
from shared.database.deadline_socket import DeadlineSocket
from shared.database.faults import ConnectionLost, ConnectRetryable, NameRefused
from shared.database.session import STATEMENT_GRACE, Row, Session
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement, Value
from shared.database.url import DatabaseUrl
from shared.errors import (
    StoreBusy,
    StoreFault,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    StoreUnreachable,
)
from shared.happy_eyeballs import Preferences
from shared.observe import log, metrics, request_context
from shared.observe.metrics import Gauge

S = TypeVar("S")

CONNECT_ATTEMPTS = 3
CONNECT_BACKOFF, CONNECT_BACKOFF_MAX = 0.1, 1.0
"""Seconds before the second attempt, doubled before each further one up to the most; jittered."""
HURRY_SECONDS = CONNECT_BACKOFF_MAX * 1.5
"""Before a deadline: so early an attempt may be the last, because no pause and another one fit."""
MIN_SECONDS = 0.1
"""Nothing is begun with less time than this: that it failed would say nothing of the database."""
PREPARE_PAUSE = 5.0
"""Seconds for which a failed preparation is not tried again."""
REPLAN_PAUSE = 60.0
"""Seconds for which a statement has no name after the type of a column has changed."""


class PoolCounts(NamedTuple):
    """The leases of this process, by the names of the old health answer."""

    total: int
    idle: int
    waiting: int

    def gauges(self) -> list[Gauge]:
        """Give the counts for the metrics."""
        return [
            Gauge("db_client_connections", "Open database connections.", self.total),
            Gauge("db_client_connections_idle", "Idle database connections.", self.idle),
            Gauge("db_client_pending_requests", "Requests waiting for a connection.", self.waiting),
        ]


class Database:
    """A few leased connections to one database. Safe to share between threads."""

    def __init__(
        self,
        url: DatabaseUrl,
        settings: DatabaseSettings,
        *,
        prepare: Prepare | None = None,
    ) -> None:
        """Open nothing yet.

        `prepare` runs once, on the first connection, before anyone may use the database. It has a
        deadline of its own, `timeout`, whoever happens to come first.
        """
        self.url = url
        self.timeout = settings.timeout
        """Seconds for all that one request asks."""
        self._settings = settings
        self._prepare = prepare
        self._is_prepared = prepare is None
        self._preparing = threading.Lock()
        self._refusal: Callable[[], StoreUnavailable] | None = None
        self._refused_until = 0.0
        self._preferences = Preferences()
        self._search_path: str | None = None
        self._context: ssl.SSLContext | None = None
        self._http_context: ssl.SSLContext | None = None
        self._making_context = threading.Lock()
        self._changed = threading.Condition()
        self._idle: list[Session] = []
        self._total = 0
        self._waiting = 0
        self._has_names = settings.endpoint is None
        self._unnamed_until: dict[bytes, float] = {}
        self.breaker = Breaker(self._probe, self._wake)

    def execute(self, statement: Statement | str, /, **parameters: Value) -> list[Row]:
        """Run one statement that may be repeated without harm, in one round trip.

        Waiting for a lease, connecting and all statements of one request together have
        `timeout`. Raises StoreUnavailable, and StoreFault for an error in the statement
        itself.
        """
        return self.execute_within(self.timeout, statement, **parameters)

    def execute_within(
        self, seconds: float, statement: Statement | str, /, **parameters: Value
    ) -> list[Row]:
        """Do the same in so many seconds, if the request has as many left."""
        deadline = min(request_context.current(self.timeout).deadline, time.monotonic() + seconds)
        self.breaker.admit(deadline)
        began = time.monotonic()
        if isinstance(statement, str):
            statement = Statement("other", statement, is_prepared=False)
        try:
            rows = self._execute(deadline, statement, parameters)
        except StoreUnreachable as error:
            # Whoever ran out of less time than the others have does not speak for them.
            has_enough = deadline - began >= min(self.timeout, self._connect_timeout) * 0.9
            in_time = has_enough or time.monotonic() < deadline - HURRY_SECONDS
            if in_time and not isinstance(error, StoreTimeout):
                self.breaker.trip(error.cause)
            raise
        if self.breaker.is_open:
            self.breaker.close()
        return rows

    def _execute(
        self, deadline: float, statement: Statement, parameters: Mapping[str, Value]
    ) -> list[Row]:
        is_lost, is_named = False, self._is_named(statement)
        refused: NameRefused | None = None
        attempts: _Attempts | None = None
        while True:
            # One connection found dead means that the idle ones have most likely shared its fate.
            try:
                with self._lease(deadline, drop_idle=is_lost) as connection:
                    limit = time.monotonic() + self._settings.statement_timeout
                    if connection.may_start:
                        limit += self._connect_timeout
                    connection.set_deadline(min(deadline, limit) + STATEMENT_GRACE)
                    rows = self._ask(connection, statement, is_named, parameters)
            except NameRefused as error:
                is_named, refused = False, error
            except ConnectRetryable as error:  # Over HTTP it is a statement that shows it.
                attempts = attempts or _Attempts(min(deadline, self._connect_limit()))
                attempts.wait(error, self.breaker.check)
            except ConnectionLost as error:
                if is_lost or not error.repeat:
                    self._close_idle()
                    raise error.error from error
                is_lost = True
            else:
                if refused is not None:  # And its name alone was at fault.
                    self._refuse_names(statement, refused)
                return rows

    def _is_named(self, statement: Statement) -> bool:
        if not (statement.is_prepared and self._has_names):
            return False
        return time.monotonic() >= self._unnamed_until.get(statement.key, 0)

    def _refuse_names(self, statement: Statement, refused: NameRefused) -> None:
        """Do without names from now on, or for a while without this one."""
        if refused.is_plan:
            # Behind a pooler each of its connections refuses; it keeps them for up to an hour.
            self._unnamed_until[statement.key] = time.monotonic() + REPLAN_PAUSE
        elif self._has_names:
            self._has_names = False
            log.write(
                "INFO", "Statements are planned each time, as the pooler keeps none", error=refused
            )

    def _ask(
        self,
        connection: Session,
        statement: Statement,
        is_named: bool,
        parameters: Mapping[str, Value],
    ) -> list[Row]:
        began = time.monotonic()
        # Where the first connection found the schema, all others have to look.
        connection.search_path = self._search_path
        try:
            return connection.execute(statement, is_named, **parameters)
        except StoreFault as fault:
            fault.objects["statement"] = statement.name
            raise
        finally:
            if self._search_path is None:
                self._learn_from(connection)
            seconds = time.monotonic() - began
            metrics.QUERIES.record(seconds, statement.name)
            if seconds >= self._settings.slow_query:
                log.write(
                    "WARNING",
                    "A query was slow",
                    statement=statement.name,
                    milliseconds=round(seconds * 1000, 2),
                )

    def _learn_from(self, connection: Session) -> None:
        """Keep what the first statement was told of the session."""
        self._search_path, level = connection.told_path, connection.told_isolation
        if level not in ("", "read committed"):
            # A flight cannot choose its own, and poolers hand a session's on to others.
            log.write(
                "WARNING",
                f"default_transaction_isolation is {level}: of logins at the same time some get "
                "503. ALTER ROLE … SET default_transaction_isolation = 'read committed'",
            )

    @contextmanager
    def direct_connection(self, deadline: float) -> Iterator[Connection]:
        """Dial for what takes long: past the pooler, outside the leases, closed after."""
        with self.own_connection(deadline, self.url.direct_host()) as connection:
            yield connection

    @contextmanager
    def own_connection(self, deadline: float, url: DatabaseUrl) -> Iterator[Connection]:
        """Dial outside the leases, the preparation and the breaker, and close after."""
        connection = self._with_retries(functools.partial(self._connect, url=url), deadline)
        try:
            connection.set_deadline(deadline)
            connection.max_answer = MAX_TRANSFER_ANSWER
            yield connection
        except ConnectionLost as error:
            raise error.error from error
        finally:
            connection.close()

    @property
    def _connect_timeout(self) -> float:
        return self.url.connect_timeout or self._settings.connect_timeout

    def counts(self) -> PoolCounts:
        """Count open connections, idle ones among them, and requests that wait for one."""
        with self._changed:
            return PoolCounts(self._total, len(self._idle), self._waiting)

    def close(self) -> None:
        """Close the idle connections. The leased ones follow when they come back too old."""
        self.breaker.close()
        self._close_idle()

    def _close_idle(self) -> None:
        with self._changed:
            self._drop_idle(older_than=0)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _probe(self, deadline: float) -> None:
        self.ask_apart(deadline, "SELECT 1")

    def ask_apart(self, deadline: float, statement: str) -> list[Row]:
        """Ask once as requests do, but outside the leases, the preparation and the breaker.

        Raises StoreUnavailable and StoreFault.
        """
        try:
            connection = self._dial(deadline)
            try:
                connection.set_deadline(deadline)
                return connection.execute(statement)
            finally:
                connection.close()
        except ConnectRetryable as error:
            raise StoreUnreachable(cause=f"cannot connect: {error}") from error
        except ConnectionLost as error:
            raise error.error from error

    @contextmanager
    def _lease(self, deadline: float, *, drop_idle: bool) -> Iterator[Session]:
        connection = self._take(deadline, drop_idle=drop_idle)
        keep = False
        try:
            yield connection
            keep = True
        except StoreFault:
            keep = True
            raise
        finally:
            self._give_back(connection, keep=keep)

    def _take(self, deadline: float, *, drop_idle: bool) -> Session:
        with self._changed:
            if drop_idle:
                self._drop_idle(older_than=0)
            if not self._is_settled():
                self._wait(deadline)
            self.breaker.check()
            if deadline - time.monotonic() < MIN_SECONDS:
                self._changed.notify()  # The next one that waits may have the time.
                raise StoreBusy(cause="a connection was free too late to begin anything")
            self._drop_idle(older_than=self._settings.max_idle)
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_stale():
                    return connection
                self._forget(connection)
            self._total += 1
        try:
            return self._open(deadline)
        except BaseException:
            with self._changed:
                self._total -= 1
                self._changed.notify()
            raise

    def _wait(self, deadline: float) -> None:
        began = time.monotonic()
        self._waiting += 1
        try:
            if not self._changed.wait_for(self._is_settled, deadline - began):
                raise StoreBusy(cause="every connection was leased until the deadline")
        finally:
            self._waiting -= 1
            metrics.WAITS.record(time.monotonic() - began)

    def _give_back(self, connection: Session, *, keep: bool) -> None:
        with self._changed:
            if keep and not connection.is_spoilt and self._settings.max_idle > 0:
                connection.used_at = time.monotonic()
                self._idle.append(connection)
            else:
                self._forget(connection)
            self._changed.notify()

    def _is_free(self) -> bool:
        return bool(self._idle) or self._total < self._settings.max_connections

    def _is_settled(self) -> bool:
        """Tell whether waiting has come to an end, for better or for worse."""
        return self._is_free() or self.breaker.is_open

    def _drop_idle(self, *, older_than: float) -> None:
        """Close what was last used longer ago; the first was, because the last is used first."""
        latest = time.monotonic() - older_than
        while self._idle and self._idle[0].used_at <= latest:
            self._forget(self._idle.pop(0))

    def _forget(self, connection: Session) -> None:
        connection.close()
        self._total -= 1

    def _open(self, deadline: float) -> Session:
        self._refuse_after_failure()
        connection = self._with_retries(self._dial, deadline, self.breaker.check)
        if self._is_prepared:
            return connection
        try:
            if not self._preparing.acquire(timeout=max(0, deadline - time.monotonic())):
                raise StoreBusy(cause="another request is still preparing the database")
            try:
                if self._prepare and not self._is_prepared:
                    self._refuse_after_failure()  # Of another request, while this one waited.
                    self._run(self._prepare, connection)
            finally:
                self._preparing.release()
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_after_failure(self) -> None:
        """Answer at once for a while after a failed preparation, so that not everyone tries."""
        if self._refusal is not None and time.monotonic() < self._refused_until:
            raise self._refusal()

    def _run(self, prepare: Prepare, connection: Session) -> None:
        limit = time.monotonic() + self.timeout
        connection.set_deadline(limit)
        try:
            prepare(self, connection, limit)
        except (StoreUnavailable, StoreFault) as error:
            kind = type(error) if isinstance(error, StoreUnavailable) else StoreRefused
            self._refusal = functools.partial(kind, cause=f"the schema is not ready: {error}")
            self._refused_until = time.monotonic() + PREPARE_PAUSE
            raise self._refusal() from error
        self._is_prepared = True

    def _with_retries(
        self,
        dial: Callable[[float], S],
        deadline: float,
        before_again: Callable[[], None] = lambda: None,
    ) -> S:
        attempts = _Attempts(min(deadline, self._connect_limit()))
        while True:
            try:
                return dial(attempts.deadline)
            except StoreUnreachable as error:  # The last one, that nobody answered any more.
                raise StoreUnreachable(cause=f"{error.cause}{attempts.told}") from error
            except ConnectRetryable as error:
                attempts.wait(error, before_again)

    def _connect_limit(self) -> float:
        return time.monotonic() + self._connect_timeout

    def _connect(self, deadline: float, url: DatabaseUrl | None = None) -> Connection:
        with self._making_context:
            self._context = self._context or make_tls_context(self.url.root_certificates)
        return connect(url or self.url, self._context, deadline, self._preferences)

    def _dial(self, deadline: float) -> Session:
        """Connect as requests do."""
        endpoint = self._settings.endpoint
        if endpoint is None:
            return self._connect(deadline)
        from shared.database import http_connection  # Where it is spoken.

        with self._making_context:
            self._http_context = self._http_context or make_tls_context(
                self.url.root_certificates, "http/1.1", DeadlineSocket
            )
        begin = functools.partial(
            http_connection.HttpConnection, self.url, endpoint, self._settings.statement_timeout
        )
        return dial(*endpoint[:2], self._http_context, deadline, self._preferences, begin)


class _Attempts:
    """Attempts to connect, with pauses between them that become longer."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.told = ""
        """What to add to an error of the last one."""
        self._count = 0

    def wait(self, error: ConnectRetryable, before_again: Callable[[], None]) -> None:
        """Pause after a failure. Raises StoreUnreachable where it was the last."""
        self.told = f"; the attempt before: {error}"
        self._count += 1
        pause = min(CONNECT_BACKOFF * 2 ** (self._count - 1), CONNECT_BACKOFF_MAX)
        pause *= random.uniform(0.5, 1.5)  # noqa: S311  # jitter
        is_last = self._count >= CONNECT_ATTEMPTS and not error.starting
        if is_last or time.monotonic() + pause >= self.deadline:
            raise StoreUnreachable(cause=f"cannot connect: {error}") from error
        time.sleep(pause)
        before_again()


Prepare = Callable[[Database, Session, float], None]
"""Makes the database ready on its first connection, before a reading of `time.monotonic()`."""
