"""The checks before every function: method, origin, administrator and body."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from flask import Request, Response

from shared.errors import HttpError
from shared.model import clients
from shared.web import cors, exchange, request_body
from shared.web.call import Call
from shared.web.responses import no_content, no_such_path

if TYPE_CHECKING:
    from shared.application import Application

Body = Literal["none", "optional", "required", "stream"]
Endpoint = Callable[["Application", Request], Response]

_SAFE = ("GET", "HEAD")
_OF_PROXIES = frozenset(
    {
        "HTTP_FORWARDED",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_REAL_IP",
        "HTTP_X_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
    }
)
"""Header fields, as WSGI names them, that proxies add."""


def endpoint(
    *methods: str,
    body: Body = "none",
    admin: bool = False,
    basic: bool = False,
    exists: Callable[[Call], bool] = lambda _: True,
) -> Callable[[Callable[[Call], Response]], Endpoint]:
    """Make an endpoint of a function that answers a Call.

    HEAD is answered wherever GET is (RFC 9110, section 9.3.2), and every endpoint answers the CORS
    preflight of an allowed origin. `body` says whether other methods expect a JSON object, or that
    the function reads `call.stream` itself. `admin` endpoints are 404 if no administrator is
    configured, and check the credentials before they read the body. `basic`, for what is only read,
    also accepts the token as a password of HTTP Basic. `exists` decides, before all else,
    whether the path exists for the caller.
    """
    if "GET" in methods:
        methods = (*methods, "HEAD")

    def decorate(function: Callable[[Call], Response]) -> Endpoint:
        def checked(call: Call) -> Response:
            if not exists(call) or (admin and not call.settings.administrators.exist):
                raise no_such_path()
            _warn_of_origin(call)
            _warn_of_proxies(call)
            if _is_preflight(call):
                request_body.read_json(call.request, "none")
                return no_content(cors.preflight_headers(methods))
            _check(call, methods)
            if admin:
                call.takes_basic = basic
                authenticate_admin(call)
            if call.request.method in _SAFE:
                request_body.read_json(call.request, "none")
            elif body == "stream":
                call.stream = request_body.open_stream(call.request)
            else:
                call.body = request_body.read_json(call.request, body)
            return function(call)

        @functools.wraps(function)
        def serve(app: Application, request: Request) -> Response:
            return exchange.serve(app, request, function.__name__, checked)

        return serve

    return decorate


def _check(call: Call, methods: tuple[str, ...]) -> None:
    request = call.request
    if request.method not in methods:
        allow = ", ".join(methods)
        raise HttpError(
            405, "method_not_allowed", f"Use {allow} for this address", {"Allow": allow}
        )
    if request.method in _SAFE:
        return
    if not cors.is_trusted_source(*call.source, call.settings.web):
        raise HttpError(403, "origin_not_allowed", "This page may not send requests here")


def _is_preflight(call: Call) -> bool:
    return call.request.method == "OPTIONS" and cors.is_allowed(
        call.request.headers.get("Origin"), call.settings.web
    )


def _warn_of_origin(call: Call) -> None:
    if complaint := cors.complaint(*call.source, call.settings.web):
        sentence, origin = complaint
        call.app.notices.warn(sentence, origin, origin=origin)


def _warn_of_proxies(call: Call) -> None:
    environ, proxies = call.request.environ, call.settings.web.trusted_proxies
    forwarded_for = environ.get("HTTP_X_FORWARDED_FOR")
    is_proxied = forwarded_for is None and not _OF_PROXIES.isdisjoint(environ)
    if doubt := clients.doubt(forwarded_for, proxies, is_proxied=is_proxied):
        call.app.notices.warn(doubt)


def authenticate_admin(call: Call) -> None:
    """Name the call's administrator. Raises as `administrators.authenticate` does."""
    from shared.rules import administrators  # Loaded only for administrators.

    call.admin = call.log["admin"] = administrators.authenticate(
        call.settings.administrators, call.bearer_token, call.app.google_id_tokens, call.now
    )
