"""Which pages may send requests, and the CORS headers for their browsers.

Knows no web framework; `origin` is the request's header of that name.
"""

from __future__ import annotations

from shared.web.settings import WebSettings


def is_allowed(origin: str | None, settings: WebSettings) -> bool:
    """Tell whether the settings name the origin."""
    return origin in settings.allowed_origins


def is_trusted_source(
    origin: str | None, site: str | None, host: str, settings: WebSettings
) -> bool:
    """Tell whether a state-changing call comes from our own pages, or from no page at all.

    Browsers send `Sec-Fetch-Site` (Fetch Metadata), older ones at least `Origin`. A client that
    sends neither is no browser and does not send cookies unintentionally. `site` is the value of
    `Sec-Fetch-Site`.
    """
    if is_allowed(origin, settings):
        return True
    if site is not None:
        return site in ("same-origin", "none")
    schemes = ("https",) if settings.secure else ("https", "http")
    return origin is None or (host != "" and origin in {f"{scheme}://{host}" for scheme in schemes})


def preflight_headers(methods: tuple[str, ...]) -> dict[str, str]:
    """Answer the CORS preflight of an allowed origin."""
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "600",
    }


def answer_headers(origin: str | None, settings: WebSettings) -> dict[str, str]:
    """Let the pages of an allowed origin read the answer."""
    if not settings.allowed_origins:
        return {}
    headers = {"Vary": "Origin"}
    if origin is not None and is_allowed(origin, settings):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers
