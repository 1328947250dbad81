"""What the server waits for, whose pages and proxies are trusted, and the cookie."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from shared.environment import Environment
from shared.formats import origins
from shared.formats.origins import InvalidOrigin, Origin

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_COOKIE_NAME_MAX_LENGTH = 64


class WebSettings(NamedTuple):
    """Durations are in seconds."""

    secure: bool = False
    """Whether the outside world speaks HTTPS to us."""
    cookie_name: str = "session"
    allowed_origins: frozenset[Origin] = frozenset()
    hosts: frozenset[str] = frozenset()
    """Those of one of several applications: in lower case and ASCII, without a port."""
    trusted_proxies: int | None = None
    """None, which trusts nobody, if nobody has said how many there are."""
    trusts_forwarded_host: bool = False
    """Whether a proxy, which calls us by another name, tells in `X-Forwarded-Host` what it was
    called."""
    request_timeout: float = 10.0
    stream_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    port: int = 8080
    threads: int = 4 * (os.cpu_count() or 1)
    """Of the server: functions-framework reads these two as well, with the same defaults."""
    google_cloud_project: str | None = None
    sign_in_page: bool = False

    @classmethod
    def read(cls, env: Environment) -> WebSettings:
        """Read them, and leave problems with the environment."""
        default = cls()
        if env.secure and env.text("DEBUG"):
            env.problems.append(
                "DEBUG is set: it would expose an interactive debugger. Remove the variable."
            )
        # functions-framework reads these by itself: a wrong one ends in a traceback or in silence.
        env.number("WORKERS", 1, 1, 100)
        env.number("CLOUD_RUN_TIMEOUT_SECONDS", 0, 0, 86_400)
        if env.boolean("FUNCTION_USE_ASGI", default=False):
            env.problems.append("FUNCTION_USE_ASGI is set: the functions are WSGI. Remove it.")
        is_development = env.name == "development"
        return cls(
            secure=env.secure,
            cookie_name=_cookie_name(env),
            allowed_origins=_allowed_origins(env),
            hosts=_hosts(env),
            trusted_proxies=_trusted_proxies(env),
            trusts_forwarded_host=env.boolean("TRUST_FORWARDED_HOST", default=False),
            request_timeout=env.number("REQUEST_TIMEOUT", default.request_timeout, 0.1, 300),
            stream_timeout=env.number("STREAM_TIMEOUT", default.stream_timeout, 0.1, 3600),
            keep_alive_timeout=env.number(
                "KEEP_ALIVE_TIMEOUT", default.keep_alive_timeout, 1, 3600
            ),
            port=env.number("PORT", default.port, 1, 65535),
            threads=env.number("THREADS", default.threads, 1, 1000),
            google_cloud_project=env.text("GOOGLE_CLOUD_PROJECT"),
            sign_in_page=env.boolean("SIGN_IN_PAGE", default=is_development),
        )


def _hosts(env: Environment) -> frozenset[str]:
    words = env.words("HOSTS")
    if not env.application:
        return frozenset()
    if not words and env.name == "development":
        words = [f"{env.application}.localhost"]
    if not words:
        env.problems.append(
            "HOSTS is missing: list the names under which browsers call the application, such as "
            "shop.example.com."
        )
    found = set()
    for word in words:
        try:
            host = origins.parse_written(f"https://{word}").host
        except InvalidOrigin as error:
            env.problems.append(f"HOSTS must list names such as shop.example.com: {error}.")
            continue
        if word.rpartition("]")[2].count(":"):
            env.problems.append("HOSTS must list names without a port: every port is meant.")
        found.add(host)
    return frozenset(found)


def _trusted_proxies(env: Environment) -> int | None:
    # Whoever calls Cloud Run, its own front end appends the address.
    is_known = env.text("TRUSTED_PROXIES") or env.text("K_SERVICE")
    return env.number("TRUSTED_PROXIES", 1, 0, 10) if is_known else None


def _cookie_name(env: Environment) -> str:
    name = env.text("COOKIE_NAME") or ("__Host-session" if env.secure else "session")
    if not _TOKEN.fullmatch(name):
        env.problems.append("COOKIE_NAME must be an HTTP token, such as __Host-session.")
    if len(name) > _COOKIE_NAME_MAX_LENGTH:
        env.problems.append(
            f"COOKIE_NAME may have at most {_COOKIE_NAME_MAX_LENGTH} characters, because "
            "browsers drop a cookie that is too long as a whole."
        )
    if name.startswith(("__Host-", "__Secure-")) and not env.secure:
        env.problems.append(
            "COOKIE_NAME begins with a prefix that browsers accept over HTTPS only, and "
            "development is served without."
        )
    return name


def _allowed_origins(env: Environment) -> frozenset[Origin]:
    found = set()
    for number, entry in enumerate(env.words("ALLOWED_ORIGINS"), 1):
        try:
            found.add(origins.parse_written(entry))
        except InvalidOrigin as error:
            # Before an @ there may be a password.
            shown = f"entry {number}" if "@" in entry else entry
            env.problems.append(
                "ALLOWED_ORIGINS must list origins such as https://app.example.com; "
                f"{shown} can never match: {error}."
            )
    return frozenset(found)
