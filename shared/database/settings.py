"""How the database is reached, and for how long it is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.database.url import DatabaseUrl, InvalidDatabaseUrl
from shared.environment import Environment

if TYPE_CHECKING:
    from shared.database.endpoint import Endpoint


class DatabaseSettings(NamedTuple):
    """Durations are in seconds."""

    url: DatabaseUrl | None = None
    endpoint: Endpoint | None = None
    """Where requests' statements go by HTTP; else they go over TCP."""
    read_url: DatabaseUrl | None = None
    """The replica that answers statistics, exports and snapshots."""
    auto_migrate: bool = True
    timeout: float = 15.0
    connect_timeout: float = 10.0
    statement_timeout: float = 5.0
    max_connections: int = 4
    max_idle: float = 30.0
    slow_query: float = 1.0

    @classmethod
    def read(cls, env: Environment) -> DatabaseSettings:
        """Read them, and leave problems with the environment."""
        default = cls()
        url, read_url = _url(env, "DATABASE_URL"), _url(env, "DATABASE_READ_URL")
        _check_replica(env, url, read_url)
        return cls(
            url=url,
            endpoint=_endpoint(env, url),
            read_url=read_url,
            auto_migrate=env.boolean("AUTO_MIGRATE", default=default.auto_migrate),
            timeout=env.number("DATABASE_TIMEOUT", default.timeout, 0.1, 300),
            connect_timeout=env.number(
                "DATABASE_CONNECT_TIMEOUT", default.connect_timeout, 0.1, 300
            ),
            statement_timeout=env.number(
                "DATABASE_STATEMENT_TIMEOUT", default.statement_timeout, 0.1, 300
            ),
            max_connections=env.number("DATABASE_MAX_CONNECTIONS", default.max_connections, 1, 100),
            max_idle=env.number("DATABASE_MAX_IDLE", default.max_idle, 0, 3600),
            slow_query=env.number("DATABASE_SLOW_QUERY", default.slow_query, 0, 300),
        )


def _url(env: Environment, name: str) -> DatabaseUrl | None:
    text = env.text(name)
    if text is None:
        return None
    try:
        return DatabaseUrl.parse(text)
    except InvalidDatabaseUrl as error:
        env.problems.append(f"{name} cannot be used: {error}.")
        return None


def _check_replica(env: Environment, url: DatabaseUrl | None, read_url: DatabaseUrl | None) -> None:
    if read_url is None:
        return
    if env.text("DATABASE_URL") is None:
        env.problems.append(
            "DATABASE_READ_URL needs DATABASE_URL: a replica answers for a primary, and takes no "
            "writes."
        )
    elif url is not None and url.place == read_url.place:
        env.problems.append(
            "DATABASE_READ_URL names the host, port and database of DATABASE_URL: name the "
            "replica's, or leave it out."
        )


def _endpoint(env: Environment, url: DatabaseUrl | None) -> Endpoint | None:
    transport = (env.text("DATABASE_TRANSPORT") or "tcp").lower()
    text = env.text("DATABASE_HTTP_URL")
    if transport not in ("tcp", "http"):
        env.problems.append("DATABASE_TRANSPORT must be one of tcp, http.")
    if transport != "http" or url is None:
        return None
    from shared.database.endpoint import Endpoint  # Nobody else needs it.

    if url.require_channel_binding:
        env.problems.append(
            "DATABASE_TRANSPORT=http cannot keep channel_binding=require of DATABASE_URL: over "
            "HTTP the password travels in a header. Remove one of them."
        )
    if text is not None:
        try:
            return Endpoint.parse(text)
        except ValueError:
            env.problems.append(
                "DATABASE_HTTP_URL must be a URL such as https://api.us-east-2.aws.neon.tech/sql, "
                "without user, query and fragment."
            )
            return None
    if (endpoint := Endpoint.of_neon(url.host)) is None:
        env.problems.append(
            "DATABASE_TRANSPORT=http needs DATABASE_HTTP_URL: the host of DATABASE_URL is not "
            "Neon's."
        )
    return endpoint
