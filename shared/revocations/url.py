"""Reads `REDIS_URL`: `rediss://`, whose certificate is verified, or `redis://` without TLS."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT = 6379
_CERTIFICATES = "ssl_ca_certs"
"""Of the query, as redis-py calls it: a file with the roots to trust instead of the machine's."""


class InvalidRedisUrl(ValueError):
    """It cannot be used; the text is a clause without any part of a secret."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where and how to connect."""

    host: str
    port: int
    tls: bool
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    root_certificates: str | None = None

    @property
    def is_on_this_machine(self) -> bool:
        """Whether nobody else can read what goes there."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse(text: str) -> RedisUrl:
    """Read a URL. Raises InvalidRedisUrl."""
    if " " in text or not text.isprintable():
        raise InvalidRedisUrl("it has a blank or a control character; write a blank as %20")
    try:
        parts = urlsplit(text)
        if parts.fragment or "@" in parts.path + parts.query:
            raise InvalidRedisUrl(
                "it has a '#', or an '@' behind the host; in a password write '/' as %2F, '?' as "
                "%3F, '#' as %23 and '@' as %40"
            )
        host, port = parts.hostname, parts.port
    except InvalidRedisUrl:  # A ValueError, too.
        raise
    except ValueError:
        raise InvalidRedisUrl(
            "its host or port cannot be read; a port is a number from 1 to 65535, and an IPv6 "
            "address stands in brackets"
        ) from None
    if parts.scheme not in ("redis", "rediss"):
        raise InvalidRedisUrl("it must begin with rediss:// (or redis://, without TLS)")
    if not host:
        raise InvalidRedisUrl("it must name a host")
    if port == 0:
        raise InvalidRedisUrl("its port is 0; a port is a number from 1 to 65535")
    user, password = _decoded(parts.username), _decoded(parts.password)
    if user and not password:
        raise InvalidRedisUrl("it has a user and no password; a password alone is :password@host")
    return RedisUrl(
        host=host,
        port=DEFAULT_PORT if port is None else port,
        tls=parts.scheme == "rediss",
        database=_database(parts.path),
        user=user,
        password=password,
        root_certificates=_root_certificates(parts.query, tls=parts.scheme == "rediss"),
    )


def _database(path: str) -> int:
    number = path.removeprefix("/")
    if number and not re.fullmatch(r"[0-9]{1,5}", number):
        raise InvalidRedisUrl("what stands behind the host must be a database's number, such as /0")
    return int(number or 0)


def _root_certificates(query: str, *, tls: bool) -> str | None:
    given = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    for name, _ in given:
        if name != _CERTIFICATES:
            # What follows a bare question mark in a password is no parameter, and is not shown.
            shown = f" {name!r}" if re.fullmatch(r"[a-z_]{1,30}", name) else ""
            raise InvalidRedisUrl(
                f"its parameter{shown} is not supported; there is {_CERTIFICATES} alone"
            )
    if not given:
        return None
    path = given[-1][1]
    if not tls:
        raise InvalidRedisUrl(f"{_CERTIFICATES} needs rediss://")
    if not os.access(path, os.R_OK):
        raise InvalidRedisUrl(f"{_CERTIFICATES} names {path!r}, which cannot be read")
    return path


def _decoded(text: str | None) -> str | None:
    try:
        return unquote(text, errors="strict") if text else None
    except UnicodeDecodeError:
        raise InvalidRedisUrl("its percent-encoding is not UTF-8") from None
