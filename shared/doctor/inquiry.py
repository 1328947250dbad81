"""One look at a database, by the way of requests and by that of migrations."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

from shared.database import migrations
from shared.database.connection import Connection
from shared.database.faults import ConnectionLost
from shared.database.pool import Database
from shared.database.session import Row
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement, Value
from shared.database.url import DatabaseUrl
from shared.errors import StoreUnavailable
from shared.store.postgres import preflight

Answer = TypeVar("Answer")

_HERE = """
SELECT pg_catalog.quote_ident(pg_catalog.current_database()),
    pg_catalog.quote_ident(current_user), coalesce(pg_catalog.current_schema(), '')::text,
    pg_catalog.current_setting('server_version'),
    extract(epoch FROM pg_catalog.clock_timestamp())::text, pg_catalog.pg_is_in_recovery(),
    pg_catalog.current_setting('transaction_read_only') = 'on'
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection ends up."""

    database: str
    role: str
    """As SQL names them, in quotes where these are needed."""
    schema: str
    """The first one of the search path that exists; empty where none does."""
    version: str
    time: float
    is_standby: bool
    is_read_only: bool


class Inquiry:
    """Asks each question once, whatever checks want its answer."""

    def __init__(
        self, url: DatabaseUrl, settings: DatabaseSettings, clock: Callable[[], float]
    ) -> None:
        """Ask nothing yet. `clock` is the one here, in seconds since 1970."""
        self.url, self.settings, self.clock = url, settings, clock
        self.host = url.host
        """The host that was asked last."""
        self.failure: StoreUnavailable | None = None
        """Why nothing more can be asked."""
        self._database = Database(url, settings)
        self._connections: dict[str, Connection] = {}
        self._stack = ExitStack()

    @functools.cached_property
    def served(self) -> Place:
        """Where requests are served: through the pooler, if the URL names one."""
        return self._run(self.url, _ask_place)

    @functools.cached_property
    def migrated(self) -> Place:
        """Where migrations go: past Neon's pooler."""
        return self._run(self.url.direct_host(), _ask_place)

    def by_http(self) -> Place:
        """Where requests are served that go by HTTP. Raises StoreUnavailable and StoreFault."""
        rows = self._database.ask_apart(time.monotonic() + self._database.timeout, _HERE)
        return _read_place(rows)

    @functools.cached_property
    def obstacles(self) -> list[preflight.Obstacle]:
        """What stands in the way of migrations and requests."""
        return self._run(self.url.direct_host(), preflight.obstacles)

    @functools.cached_property
    def migrations(self) -> list[migrations.Status]:
        """The state of each migration."""
        return self._run(self.url.direct_host(), migrations.status)

    @property
    def has_pooler(self) -> bool:
        """Whether requests and migrations go different ways."""
        return self.url.direct_host() != self.url

    def reach(self) -> None:
        """Connect; where that fails, ask nothing later, and leave it to others to tell."""
        try:
            self.ask("SELECT 1")
        except StoreUnavailable as error:
            self.failure = error

    def ask(self, statement: Statement | str, **parameters: Value) -> list[Row]:
        """Ask where requests are served. Raises StoreUnavailable and StoreFault."""
        return self._run(self.url, lambda it: it.execute(statement, **parameters))

    def round_trip(self) -> float:
        """Measure the seconds that an answer takes: the least of a few, for the machine is busy."""
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            self.ask("SELECT 1")
            seconds.append(time.monotonic() - began)
        return min(seconds)

    def seconds_ahead(self) -> float:
        """Tell by how much the clock here is ahead of the database's, or behind if below 0.

        It is 0 where the time that the answer took hides the difference.
        """
        self.ask("SELECT 1")  # Now there is a connection, and an answer takes one round trip.
        began = self.clock()
        at = self._run(self.url, _ask_place).time
        return max(0.0, began - at) + min(0.0, self.clock() - at)

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()

    def _run(self, url: DatabaseUrl, ask: Callable[[Connection], Answer]) -> Answer:
        self.host = url.host
        deadline = time.monotonic() + self._database.timeout
        try:
            if url.host not in self._connections:
                opening = self._database.own_connection(deadline, url)
                self._connections[url.host] = self._stack.enter_context(opening)
            self._connections[url.host].set_deadline(deadline)
            return ask(self._connections[url.host])
        except ConnectionLost as error:
            raise error.error from error


def _ask_place(connection: Connection) -> Place:
    return _read_place(connection.execute(_HERE))


def _read_place(rows: list[Row]) -> Place:
    ((database, role, schema, version, now, is_standby, is_read_only),) = rows
    return Place(
        database, role, schema, version, float(now),
        is_standby=is_standby, is_read_only=is_read_only,
    )  # fmt: skip
