"""The entry points for functions-framework, by name, and `api`, which routes to all of them.

Each module is imported on first use, so that a probe does not pay for the imports of a login. The
settings are checked here, before the server starts.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import flask

from shared.applications import Applications
from shared.environment import InvalidSettings
from shared.observe import telemetry
from shared.settings import Settings
from shared.web import flask_app

if TYPE_CHECKING:
    from shared.web.endpoint import Endpoint

EntryPoint = Callable[[flask.Request], flask.Response]

ROUTES = {
    "/api/signup": "signup",
    "/api/register": "signup",
    "/api/login": "login",
    "/api/auth/google": "google",
    "/api/logout": "logout",
    "/api/user": "session",
    "/api/session": "session",
    "/api/password": "password",
    "/api/email": "email",
    "/api/email/verification": "email_verification",
    "/api/email/verify": "email_verify",
    "/api/login/mail": "login_mail",
    "/api/login/mail/verify": "login_mail_verify",
    "/api/password/forgot": "password_forgot",
    "/api/password/reset": "password_reset",
    "/api/mail/delivery": "mail_delivery",
    "/api/account": "account",
    "/api/migrate": "migrate",
    "/api/stats": "stats",
    "/api/metrics": "metrics",
    "/api/dashboard": "dashboard",
    "/api/health": "health",
    "/api/livez": "health",
    "/.well-known/jwks.json": "jwks",
}
"""The API, as docs/openapi.yaml describes it."""

PAGES = {
    "/": "page",
    "/sign-in.css": "page",
    "/sign-in.js": "page",
    "/mailbox.js": "page",
    "/client.js": "page",
    "/reset": "mailbox_page",
    "/verify": "mailbox_page",
    "/link": "mailbox_page",
    "/email": "mailbox_page",
    "/mail": "mail_page",
}
"""The sign-in page, those to which mails lead, and the mails of development, where they exist."""


def api(request: flask.Request) -> flask.Response:
    """Route a request to the function that has its path."""
    path = flask_app.path(request)
    return _serve(ROUTES.get(path) or PAGES.get(path), request)


def __getattr__(name: str) -> EntryPoint:
    if name not in {*ROUTES.values(), *PAGES.values()}:
        raise AttributeError(f"module {__name__!r} has no entry point {name!r}")

    _endpoint(name)  # One that is deployed alone is imported before it is called.

    # functions-framework only accepts a function.
    def entry_point(request: flask.Request) -> flask.Response:
        return _serve(name, request)

    return entry_point


def _serve(name: str | None, request: flask.Request) -> flask.Response:
    """Have a function answer for the application that is called."""
    app = applications.at(request.environ)
    # Probes call by an address, or by a name of the platform's.
    if app is None and name != "health":
        applications.warn_of_host(request.environ)
        name = None
    if name is None:
        return flask_app.not_found(app or applications.own, request)
    return _endpoint(name)(app or applications.own, request)


def _endpoint(name: str) -> Endpoint:
    endpoint: Endpoint = getattr(importlib.import_module(f"functions.{name}"), name)
    return endpoint


try:
    applications = Applications([settings.complete() for settings in Settings.all_from_env()])
except InvalidSettings as error:
    sys.exit(str(error))
applications.check_users_files()
telemetry.export_from_workers(applications.own.gauges)
# Otherwise gunicorn accepts a header `Path_Info` from callers on this machine as the path.
os.environ["FORWARDED_ALLOW_IPS"] = ""
if flask.has_app_context():
    from shared.web import server

    flask_app.adopt(flask.current_app, applications.own)
    server.install(applications.own)
