"""The host that a request calls, by which one of several applications is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.formats import origins
from shared.formats.origins import InvalidOrigin


def called(environ: Mapping[str, Any], *, trusts_forwarded: bool) -> str | None:
    """Give the host as it was sent, with its port; None if there is none.

    That of a target which is a whole URL comes before the header (RFC 9112, section 3.2.2). Of
    several in `X-Forwarded-Host` the last was added by the proxy that called us.
    """
    if trusts_forwarded and (forwarded := environ.get("HTTP_X_FORWARDED_HOST")):
        return str(forwarded).rpartition(",")[2].strip()
    scheme, is_whole, rest = str(environ.get("RAW_URI", "")).partition("?")[0].partition("://")
    if is_whole and scheme.lower() in origins.PORTS:
        return rest.partition("/")[0]
    return environ.get("HTTP_HOST")


def name(host: str | None) -> str | None:
    """Give a host's name in its one spelling, without the port; None for what is no host."""
    try:
        return origins.parse(f"http://{host or ''}").host
    except InvalidOrigin:
        return None
