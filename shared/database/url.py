"""Reads `DATABASE_URL` as Neon gives it, and refuses what would weaken the connection.

The grammar is libpq's connection URI (PostgreSQL documentation, 32.1.1.2). Where libpq would
go without a verified certificate, this goes with one: `require` and `verify-ca` are taken as
`verify-full`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT = 5432
_APPLICATION_NAME = "ai-coder-auth"
_WEAK_SSLMODES = ("disable", "allow", "prefer", "no-verify")
_SSLMODES = ("require", "verify-ca", "verify-full")
_CHANNEL_BINDINGS = ("disable", "prefer", "require")
_SSLNEGOTIATIONS = ("postgres", "direct")
NEONS_DIRECT_HOST = "DATABASE_URL names Neon's direct host, which takes few connections."
POOLED_INSTEAD = (
    "Use the pooled one (`-pooler`), by which many instances share them; migrations use the direct "
    "host anyway."
)
"""What to tell of `is_neons_direct_host`."""
_PARAMETERS = frozenset(
    {
        "sslmode",
        "channel_binding",
        "sslrootcert",
        "sslnegotiation",
        "options",
        "application_name",
        "connect_timeout",
    }
)


_INSTEAD = {
    "schema": "options=-csearch_path=… names a schema",
    "search_path": "options=-csearch_path=… names a schema",
    "connection_limit": "remove it, and set DATABASE_MAX_CONNECTIONS",
    "pool_timeout": "remove it, and set DATABASE_TIMEOUT",
    "statement_timeout": "remove it, and set DATABASE_STATEMENT_TIMEOUT",
}
"""What to write for parameters of other drivers."""


class InvalidDatabaseUrl(ValueError):
    """The URL cannot be used; the message is a sentence without any part of its secret."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where and how to connect. `connect_timeout` is in seconds."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    direct_tls: bool = False
    require_channel_binding: bool = False
    root_certificates: str | None = None
    options: str | None = None
    application_name: str = _APPLICATION_NAME
    connect_timeout: float | None = None

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Parse a `postgresql://` URL.

        Raises InvalidDatabaseUrl with a sentence that names the part at fault.
        """
        _check_form(text)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InvalidDatabaseUrl(
                "its host or port cannot be read; a port is a number from 1 to 65535, "
                "and an IPv6 address stands in brackets"
            ) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise InvalidDatabaseUrl("it must begin with postgresql://")
        host = _decode(parts.hostname or "")
        user = _decode(parts.username or "")
        database = _decode(parts.path.removeprefix("/")) or user
        if not host or "/" in host or "," in host:
            raise InvalidDatabaseUrl("it must name one host")
        if not user or parts.password is None:
            raise InvalidDatabaseUrl("it must have a user and a password")
        if parts.fragment or "/" in database:
            raise InvalidDatabaseUrl(
                "it has a '#' or a second '/' that ends the database's name early; "
                "in a password write '#' as %23 and '/' as %2F"
            )
        if "@" in parts.path + parts.query:
            raise InvalidDatabaseUrl("it has an '@' behind the host; in a password write it as %40")
        if port == 0:
            raise InvalidDatabaseUrl("its port is 0; a port is a number from 1 to 65535")
        given = _parameters(parts.query)
        return cls(
            host=host,
            port=DEFAULT_PORT if port is None else port,
            database=database,
            user=user,
            password=_decode(parts.password),
            direct_tls=_one_of(given, "sslnegotiation", _SSLNEGOTIATIONS) == "direct",
            require_channel_binding=_one_of(given, "channel_binding", _CHANNEL_BINDINGS)
            == "require",
            root_certificates=_root_certificates(given.get("sslrootcert")),
            options=given.get("options"),
            application_name=given.get("application_name", _APPLICATION_NAME),
            connect_timeout=_seconds(given.get("connect_timeout")),
        )

    @property
    def search_path(self) -> str | None:
        """What `options` set the search path to, if they do."""
        found = None
        # libpq's rule (32.1.2): a backslash takes a space, or another backslash, along.
        words = iter(re.findall(r"(?:\\.|[^\s\\])+", self.options or ""))
        for word in words:
            setting = next(words, "") if word == "-c" else re.sub("^(-c|--)", "", word)
            name, _, value = re.sub(r"\\(.)", r"\1", setting).partition("=")
            if name.replace("-", "_").lower() == "search_path":
                found = value
        return found

    @property
    def is_neons_direct_host(self) -> bool:
        """Whether it is Neon's, past the pooler that requests should use."""
        return self.host.endswith(".neon.tech") and self.direct_host() == self

    @property
    def place(self) -> str:
        """Host, port and database, past Neon's pooler."""
        return f"{self.direct_host().host.removesuffix('.')}:{self.port}/{self.database}"

    def direct_host(self) -> DatabaseUrl:
        """Name the same database without Neon's pooler (`ep-x-pooler.…` becomes `ep-x.…`)."""
        label, dot, rest = self.host.partition(".")
        return replace(self, host=label.removesuffix("-pooler") + dot + rest)


def _check_form(text: str) -> None:
    """Refuse what other programs write, or a template, by what it is."""
    if re.match(r"(DATABASE_URL=|psql )?['\"]", text):
        raise InvalidDatabaseUrl(
            "it begins with a quotation mark, which is taken as a part of it where no shell "
            "reads it; leave the quotation marks out"
        )
    if re.match(r"postgres(ql)?\+", text):
        raise InvalidDatabaseUrl("it names a driver; it must begin with postgresql://")
    if "[" in text.rpartition("@")[0]:
        raise InvalidDatabaseUrl(
            "it has a '[' ahead of the host; is that a placeholder? In a password write '[' "
            "as %5B and ']' as %5D"
        )


def _decode(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidDatabaseUrl("its percent-encoding is not UTF-8") from None
    if "\0" in decoded:
        raise InvalidDatabaseUrl("it contains %00")
    return decoded


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    # libpq leaves a plus sign alone where an HTML form would read a space.
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in _PARAMETERS:
            # What follows a bare question mark in a password is no parameter, and is not shown.
            shown = f" {name!r}" if re.fullmatch(r"[a-z_]{1,30}", name) else ""
            instead = _INSTEAD.get(name, "remove it" if shown else "in a password write '?' as %3F")
            raise InvalidDatabaseUrl(f"its parameter{shown} is not supported; {instead}")
        if name in given:
            raise InvalidDatabaseUrl(f"its parameter {name!r} is given twice")
        given[name] = value
    mode = given.get("sslmode", "verify-full")
    if mode in _WEAK_SSLMODES:
        raise InvalidDatabaseUrl(
            f"sslmode={mode} would allow a connection without verified TLS; "
            "use sslmode=verify-full (or require, which is treated the same)"
        )
    _one_of(given, "sslmode", _SSLMODES)
    return given


def _one_of(given: dict[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = given.get(name)
    if value is not None and value not in allowed:
        raise InvalidDatabaseUrl(f"its parameter {name!r} must be one of {', '.join(allowed)}")
    return value


def _root_certificates(path: str | None) -> str | None:
    if path is None or path == "system":
        return None
    if not os.access(path, os.R_OK):
        raise InvalidDatabaseUrl(f"sslrootcert names {path!r}, which cannot be read")
    return path


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise InvalidDatabaseUrl("connect_timeout must be a whole number of seconds above 0")
    return float(text)
