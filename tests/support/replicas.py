"""A real primary with a streaming replica, over TLS, and what is said to which of the two."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from shared.database.pool import Database
from shared.database.replica import PassedOver, Replica
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.postgres import Server, running_postgres, running_standby
from tests.support.waiting import until

_MIGRATED = "migrated"
_numbers = itertools.count(1)
_SAID = re.compile(r"LOG:  (?:statement|execute [^:]*):\s+(\S[^\n]*)")


@dataclass
class Pair:
    """A primary and its replica, and one of their databases."""

    primary: Server
    standby: Server
    name: str

    def fresh(self, *, migrated: bool = True) -> Pair:
        """Give them with a database that nobody else uses."""
        name = f"replicated_{next(_numbers)}"
        self.primary.create_database(name, _MIGRATED if migrated else "template1")
        self.catch_up()
        return replace(self, name=name)

    @property
    def variables(self) -> dict[str, str]:
        """Give the settings that name both; they are not where TRANSPORT=http leads."""
        return {
            "DATABASE_TRANSPORT": "tcp",
            "DATABASE_URL": self.primary.url(self.name),
            "DATABASE_READ_URL": self.standby.url(self.name),
        }

    def run(self, sql: str) -> list[list[object]]:
        """Run SQL on the primary, as the superuser."""
        return self.primary.run(sql, self.name)

    def catch_up(self) -> None:
        """Wait until the replica has everything."""
        # A commit, because what has none is written out only after seconds, or not to its end.
        ((position,),) = self.primary.run("SELECT pg_logical_emit_message(true, '', '')::text")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        until(lambda: self.standby.run(replayed)[0][0])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have the replica replay nothing."""
        self.catch_up()
        self.standby.run("SELECT pg_wal_replay_pause()")
        until(lambda: self.standby.run("SELECT pg_get_wal_replay_pause_state()")[0][0] == "paused")
        try:
            yield
        finally:
            self.standby.run("SELECT pg_wal_replay_resume()")
            self.catch_up()

    def replica(self, url: str = "", primary_url: str = "", **settings: float) -> WatchedReplica:
        """Give a fresh view of the replica, or of what a URL names."""
        return WatchedReplica(self, url or self.standby.url(self.name), primary_url, **settings)


class WatchedReplica(Replica):
    """One that keeps for what it was passed over, and its primary."""

    def __init__(self, pair: Pair, url: str, primary_url: str, **settings: float) -> None:
        self.primary = Database(
            DatabaseUrl.parse(primary_url or pair.primary.url(pair.name)),
            DatabaseSettings()._replace(**settings),  # type: ignore[arg-type]
        )
        self.told: list[PassedOver] = []
        super().__init__(
            DatabaseUrl.parse(url),
            DatabaseSettings()._replace(**settings),  # type: ignore[arg-type]
            self.primary,
            lambda _, passed_over: self.told.append(passed_over),
        )


class Said:
    """The statements of our role that a server runs from now on, by their first lines."""

    def __init__(self, server: Server) -> None:
        self._server, self._since = server, len(server.log())

    def lines(self) -> list[str]:
        """Give them but for the settings that go ahead of each."""
        found = _SAID.findall(self._server.log()[self._since :])
        return [line for line in found if not line.startswith("SELECT set_config(")]


@contextmanager
def running_pair(system: int = 0) -> Iterator[Pair]:
    """Start both, which log our role's statements; for `system` see `running_postgres`."""
    with running_postgres(system=system) as primary:
        for setting in (
            "autovacuum = off",
            "wal_keep_size = '512MB'",  # For a replica that was away.
            "wal_retrieve_retry_interval = '100ms'",
        ):
            primary.run(f"ALTER SYSTEM SET {setting}")
        primary.run("SELECT pg_reload_conf()")
        primary.run(f"CREATE DATABASE {_MIGRATED} OWNER app")
        bring_up_to_date(DatabaseUrl.parse(primary.url(_MIGRATED)), DatabaseSettings())
        primary.run("ALTER ROLE app SET log_statement = 'all'")
        with running_standby(primary, max_standby_streaming_delay="0") as standby:
            yield Pair(primary, standby, _MIGRATED)
