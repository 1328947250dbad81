"""The answers of functions-framework and its Flask app, in our format."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from shared.web import exchange
from shared.web.responses import no_such_path

if TYPE_CHECKING:
    from shared.application import Application


def adopt(flask_app: Flask, app: Application) -> None:
    """Make functions-framework's own Flask app answer in JSON and never redirect."""

    def fail(error: HTTPException) -> Response:
        cause = getattr(error, "original_exception", None)
        return exchange.fail(app, request, cause or error)

    flask_app.url_map.merge_slashes = flask_app.url_map.strict_slashes = False
    flask_app.register_error_handler(HTTPException, fail)
    flask_app.register_error_handler(500, fail)
    # Its own log lines are not JSON, and quote errors.
    flask_app.logger.disabled = True


def not_found(app: Application, request: Request) -> Response:
    """Answer for an unknown path, whatever the method."""
    return exchange.fail(app, request, no_such_path())


def refusal(app: Application, error: Exception, method: str = "") -> Response:
    """Answer and log a request that the server refuses before it reaches a function."""
    environ = {"REQUEST_METHOD": method, "wsgi.input": io.BytesIO()}
    return exchange.fail(app, Request(environ), error)


def path(request: Request) -> str:
    """Give the path exactly as the client sent it; other spellings are other paths.

    The server's own has decoded escapes and merged leading slashes. A target may be a path or a
    whole URL (RFC 9112, section 3.2).
    """
    target: str = request.environ.get("RAW_URI", request.path).partition("?")[0]
    scheme, is_whole, rest = target.partition("://")
    if is_whole and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target
