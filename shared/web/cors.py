"""Which pages may send requests, and the CORS headers for their browsers.

Knows no web framework; `origin` is the request's header of that name, and `host` its `Host`.
"""

from __future__ import annotations

from shared.formats import origins
from shared.formats.origins import InvalidOrigin, Origin
from shared.web.settings import WebSettings

_ALLOWED_HEADERS = (
    "Content-Type, "
    # Sent by libraries, and ignored here.
    "X-Requested-With, X-Request-Id, X-Correlation-Id, Request-Id, Request-Context, "
    "X-CSRF-Token, X-XSRF-Token, Cache-Control, Pragma, "
    # Sent by tracing: W3C, Sentry, B3, Jaeger, Datadog, Elastic, New Relic, Instana, SkyWalking,
    # Google and AWS.
    "traceparent, tracestate, baggage, sentry-trace, "
    "b3, X-B3-TraceId, X-B3-SpanId, X-B3-ParentSpanId, X-B3-Sampled, X-B3-Flags, "
    "uber-trace-id, X-Datadog-Trace-Id, X-Datadog-Parent-Id, X-Datadog-Origin, "
    "X-Datadog-Sampling-Priority, X-Datadog-Tags, elastic-apm-traceparent, newrelic, "
    "X-Instana-T, X-Instana-S, X-Instana-L, sw8, "
    "X-Cloud-Trace-Context, X-Amzn-Trace-Id"
)
_EXPOSED_HEADERS = "Retry-After, X-Request-Id"

UNLISTED = (
    "A page was refused, because ALLOWED_ORIGINS does not list its origin: add it if the page is "
    "yours"
)
UNNAMED = (
    "A page was refused that ALLOWED_ORIGINS cannot list: it was opened from a file or a sandbox "
    "(its origin is null), or its scheme is neither https nor http. Serve it over https"
)
NOT_HTTPS = (
    "A page of this server was refused, because it was loaded over http: staging and production "
    "are served over https only"
)


def read_origin(text: str | None) -> Origin | None:
    """Read a request's origin; None for a missing one and for what is none, such as `null`."""
    if text is None:
        return None
    try:
        return origins.parse(text)
    except InvalidOrigin:
        return None


def is_allowed(origin: str | None, settings: WebSettings) -> bool:
    """Tell whether the settings name the origin."""
    return bool(settings.allowed_origins) and read_origin(origin) in settings.allowed_origins


def is_trusted_source(
    origin: str | None, site: str | None, host: str | None, settings: WebSettings
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
    if origin is None:
        return True
    given = read_origin(origin)
    return is_own(given, host) and (not settings.secure or str(given).startswith("https:"))


def is_own(origin: Origin | None, host: str | None) -> bool:
    """Tell whether it is the server's own origin, by the name that was called."""
    return origin is not None and origin == read_origin(f"{origin.scheme}://{host or ''}")


def complaint(
    origin: str | None, site: str | None, host: str | None, settings: WebSettings
) -> tuple[str, str] | None:
    """Give what an operator should know of a page that is refused, and its origin."""
    if origin is None or is_trusted_source(origin, site, host, settings):
        return None
    given = read_origin(origin)
    if is_own(given, host):
        return NOT_HTTPS, str(given)
    if given is None:
        return UNNAMED, "null" if origin == "null" else "not an origin"
    return UNLISTED, str(given)


def preflight_headers(methods: tuple[str, ...]) -> dict[str, str]:
    """Answer the CORS preflight of an allowed origin."""
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
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
        headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS
    return headers
