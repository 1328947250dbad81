"""Cookies as browsers and proxies send them, and as browsers keep them. Knows no web framework."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.web import cors

MAX_VALUES = 20
"""Values of one name that are looked at: browsers keep few, and each one costs a signature."""


def in_one_field(fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Join several fields `COOKIE` with semicolons (RFC 6265, section 5.4; RFC 9113, 8.2.3).

    A server that joins them with commas, as it does other fields, makes one value of two cookies.
    """
    values = [value for name, value in fields if name == "COOKIE"]
    if len(values) < 2:
        return list(fields)
    others = [field for field in fields if field[0] != "COOKIE"]
    return [*others, ("COOKIE", "; ".join(values))]


CROSS_SITE = (
    "Browsers drop the session cookie: the page that signs in is on another site than this server. "
    "Serve both under one domain and scheme; in development call both localhost"
)
NOT_SECURE = (
    "Browsers drop the session cookie: staging and production send it for https only, and this "
    "server was called by http"
)
_LOOPBACK = re.compile(r"(127(\.\d+){3}|\[::1\]|([\w-]+\.)*localhost)(:\d+)?")


def loss(
    origin: str | None, site: str | None, host: str | None, *, forwarded: str | None, secure: bool
) -> str | None:
    """Tell why a browser will not keep a cookie that is Lax and, if `secure`, Secure.

    `site` is `Sec-Fetch-Site`, which browsers leave out for addresses that are neither https nor
    their own machine's, and `forwarded` is `X-Forwarded-Proto`. None also where nothing tells.
    """
    page = cors.read_origin(origin)
    is_own = cors.is_own(page, host)
    is_plain = forwarded == "http" or (is_own and str(page).startswith("http:"))
    # Browsers take their own machine for safe.
    if secure and is_plain and not _LOOPBACK.fullmatch(host or ""):
        return NOT_SECURE
    if site == "cross-site":
        return CROSS_SITE
    if site is None and page is not None and not is_own:
        called = cors.read_origin(f"{page.scheme}://{host or ''}")
        if called is not None and _are_apart(page.host, called.host):
            return CROSS_SITE
    return None


def _are_apart(one: str, other: str) -> bool:
    """Tell whether two hosts are surely of two sites: an address has no other host on its site."""
    return one != other and any(
        host.startswith("[") or host == "localhost" or host.rpartition(".")[2].isdigit()
        for host in (one, other)
    )
