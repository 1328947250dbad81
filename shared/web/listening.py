"""Where the server listens: tried before it starts, and told when it serves.

gunicorn itself tries a port that is in use for five seconds, ends with a traceback on others, and
tells nobody when it serves.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shared import ports
from shared.observe import log

if TYPE_CHECKING:
    from shared.settings import Settings

MAX_PORT = 65535

_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class CannotListen(SystemExit):
    """Its sentence tells why. Whoever does not catch it ends with the sentence and exit code 1."""


def addresses(host: str, port: int) -> list[str]:
    """Give the host's addresses with the port, as gunicorn's setting `bind` takes them.

    `localhost` is 127.0.0.1, ::1 or both, and a client may try only one. Raises CannotListen.
    """
    if not 1 <= port <= MAX_PORT:
        raise CannotListen(f"PORT is {port}: it must be a whole number from 1 to {MAX_PORT}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"The host {host!r} has no address: set HOST to another.") from error
    # Some systems give 127.0.0.1 twice: once in place of ::1.
    usable = [
        _with_port(str(address[0]), port)
        for family, address in dict.fromkeys((family, address) for family, *_, address in found)
        if _is_here(family, address, port)
    ]
    if not usable:
        raise CannotListen(f"The host {host!r} is not this machine: set HOST to another.")
    return usable


def announce(applications: Sequence[Settings], host: str, port: int) -> None:
    """Tell that requests are served: to a developer in plain words, elsewhere as a log line."""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = "localhost"
    url = f"http://{_with_port(host, port)}"
    if applications[0].environment != "development":
        for settings in applications:
            name = settings.application or None
            log.write("INFO", f"Serving on {url}", application=name, users=_users(settings))
        return
    lines = [f"Serving on {url} (Ctrl-C ends it)"]
    for settings in applications:
        if settings.application:
            hosts = sorted(settings.web.hosts)
            lines.append(f"{settings.application}, called {', '.join(hosts)}:")
            url = f"http://{_with_port(hosts[0], port)}"
        lines += _surroundings(settings, url)
    with suppress(Exception):  # As for the log: the output may be closed.
        print("\n".join(lines), file=sys.stderr, flush=True)


def _surroundings(settings: Settings, url: str) -> list[str]:
    return [
        f"  users      {_users(settings)}",
        f"  sign-in    {url}/"
        if settings.web.sign_in_page
        else "  sign-in    off: set SIGN_IN_PAGE=true",
        f"  mail       leaves by {settings.mail.url.host}"
        if settings.mail.url is not None
        else f"  mail       {url}/mail (none leaves this machine)",
        f"  dashboard  {url}/api/dashboard (any name; the password is ADMIN_TOKEN)"
        if settings.administrators.token
        else "  dashboard  off: set ADMIN_TOKEN (openssl rand -base64 48)",
    ]


def _is_here(family: int, address: tuple[Any, ...], port: int) -> bool:
    """Tell whether this machine has the address. Raises CannotListen if the port is not free."""
    try:
        ports.try_to_bind(family, address)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        problem, remedy = ports.explain(error, port)
        raise CannotListen(f"{problem} {remedy}") from error
    return True


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _users(settings: Settings) -> str:
    url = settings.database.url
    if settings.store.use_database and url is not None:
        return f"in the database {url.database} of {url.host}"
    return f"in the file {settings.store.users_file}"
