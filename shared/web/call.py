"""One request, as a function sees it."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Request

from shared.credentials import express_sessions
from shared.errors import InvalidInput
from shared.model import clients
from shared.model.clients import Client
from shared.settings import Settings
from shared.web import cookies, hosts
from shared.web.request_body import BodyStream

if TYPE_CHECKING:
    from shared.application import Application

_NO_BODY = BodyStream(io.BytesIO(), 0)


class Call:
    """A request to one endpoint, with its state until the log line is written."""

    def __init__(self, app: Application, request: Request, function: str, now: float) -> None:
        """Begin at `now`, the time of arrival in seconds since the Unix epoch."""
        self.app = app
        self.request = request
        self.function = function
        """The endpoint's name in the log."""
        self.now = now
        self.started = time.perf_counter()
        self.request_id = f"{random.getrandbits(64):016x}"
        """Identifies the request in its answer and its log lines; not secret, so no system call."""
        self.body: dict[str, Any] = {}
        self.stream = _NO_BODY
        """The body, if the endpoint takes a stream."""
        self.takes_basic = False
        """Whether an administrator may authenticate by HTTP Basic."""
        self.admin = ""
        """The administrator's name, on endpoints for administrators."""
        self.names: dict[str, object] = {}
        """Fields of every log line of the request."""
        self.log: dict[str, object] = {}
        """Further fields of the request's final log line."""
        self.is_streaming = False
        """Whether lines of the answer are still to be sent."""
        self.failure = 0
        """The status of an error, even if it is too late to send it."""
        self.later: list[Callable[[], None]] = []
        """Called after the answer has been sent."""
        self.known_client: Client | None = None
        """The client, once a function has used it; then it is logged."""

    @property
    def settings(self) -> Settings:
        """The application's settings."""
        return self.app.settings

    @property
    def client(self) -> Client:
        """The client, found behind the trusted proxies."""
        if self.known_client is None:
            found = clients.find(
                self.request.headers.get("X-Forwarded-For"),
                self.request.remote_addr,
                self.settings.web.trusted_proxies,
            )
            session = self.app.sessions.to_end(self.session_token)
            self.known_client = Client(found.address, session)
        return self.known_client

    @property
    def source(self) -> tuple[str | None, str | None, str | None]:
        """What the request says of the page that sent it, and the host that was called.

        As sent: werkzeug's `host` lacks some ports, and is empty for some names.
        """
        headers, trusts = self.request.headers, self.settings.web.trusts_forwarded_host
        host = hosts.called(self.request.environ, trusts_forwarded=trusts)
        return headers.get("Origin"), headers.get("Sec-Fetch-Site"), host

    @property
    def locale(self) -> str | None:
        """The one of our languages that the browser prefers; None if it names none of them."""
        from shared.model.locales import preferred_locale  # Most requests write to nobody.

        return preferred_locale(self.request.headers.get("Accept-Language"))

    def afterwards(self, function: Callable[[], None]) -> None:
        """Call a function after the answer has been sent. Its errors are only logged.

        Only the next request of the same connection waits for it. On platforms without CPU between
        requests it continues during a later request, so do not use it for anything essential.
        """
        self.later.append(function)

    @property
    def session_tokens(self) -> list[str]:
        """The values of all cookies of the session's name; any may come from elsewhere."""
        return self._cookies(self.settings.web.cookie_name)

    @property
    def session_token(self) -> str | None:
        """The token in the session cookie; of several cookies, the one that is somebody's."""
        values = self.session_tokens
        if len(values) > 1:
            self.log["cause"] = "several cookies of one name"
            return self.app.sessions.choose(values[: cookies.MAX_VALUES], self.now)
        return values[0] if values else None

    @property
    def express_sids(self) -> list[str]:
        """The ids of the old server's sessions that its cookies prove."""
        if not self.settings.credentials.express_sessions:
            return []
        values = self._cookies(express_sessions.COOKIE_NAME)[: cookies.MAX_VALUES]
        secrets = self.settings.credentials.session_secrets
        sids = (express_sessions.session_id(value, secrets) for value in values)
        return list(dict.fromkeys(sid for sid in sids if sid))

    @property
    def express_sid(self) -> str | None:
        """The id of the old server's session, if its cookies prove exactly one."""
        sids = self.express_sids
        return sids[0] if len(sids) == 1 else None

    @property
    def bearer_token(self) -> str | None:
        """The token in the header `Authorization: Bearer …` (RFC 6750, section 2.1).

        With `takes_basic` also the password of `Basic …` (RFC 7617), with any user name. Browsers
        send that automatically, so never allow it on an endpoint that changes anything.
        """
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        given = self.request.authorization if self.takes_basic else None
        return given.password if given is not None and given.type == "basic" else None

    def _cookies(self, name: str) -> list[str]:
        return list(dict.fromkeys(self.request.cookies.getlist(name)))

    def text(self, name: str) -> str:
        """Give a member of the body that must be a non-empty string. Raises InvalidInput."""
        value = self.optional_text(name)
        if not value:
            raise InvalidInput(name, f"Please enter your {name}")
        return value

    def optional_text(self, name: str) -> str | None:
        """Give a member of the body that may be absent or null. Raises InvalidInput."""
        value = self.body.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(name, f"The {name} must be a string")
        return value
