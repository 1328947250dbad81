"""Pools whose statements go by HTTP, to a stand-in or to whom its port belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from shared.database.endpoint import Endpoint
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl

SETTINGS = DatabaseSettings(timeout=6, connect_timeout=3, statement_timeout=2)


@contextmanager
def by_http(
    url: str, port: int, settings: DatabaseSettings = SETTINGS, *, host: str = "localhost"
) -> Iterator[Database]:
    """Open a pool whose `/sql` is at a port of this machine."""
    endpoint = Endpoint(host, port, "/sql")
    with closing(Database(DatabaseUrl.parse(url), settings._replace(endpoint=endpoint))) as pool:
        yield pool
