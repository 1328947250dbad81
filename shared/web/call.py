"""One request, checked: what a function may see of it."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Request

from shared.credentials import express_sessions
from shared.errors import InvalidInput
from shared.model import clients
from shared.model.clients import Client
from shared.settings import Settings
from shared.web.request_body import BodyStream

if TYPE_CHECKING:
    from shared.application import Application

_NO_BODY = BodyStream(io.BytesIO(), 0)


@dataclass(slots=True)
class Call:
    """A request to one endpoint of an application, and what is to be done about it."""

    app: Application
    request: Request
    function: str
    """The endpoint's name in the log."""
    now: float
    """When it arrived, in seconds since the Unix epoch."""
    started: float = field(default_factory=time.perf_counter)
    request_id: str = field(default_factory=lambda: f"{random.getrandbits(64):016x}")
    """Names the request in its answer and its log line; no secret, and so without a system call."""
    body: dict[str, Any] = field(default_factory=dict)
    stream: BodyStream = _NO_BODY
    """The body, of an endpoint that takes it as a stream."""
    takes_basic: bool = False
    """Whether a browser may prove who the administrator is, by HTTP's Basic scheme."""
    admin: str = ""
    """Who the administrator is, of an endpoint for one."""
    names: dict[str, object] = field(default_factory=dict)
    """What each line of the log says that the request causes."""
    log: dict[str, object] = field(default_factory=dict)
    """What else the request's own line says."""
    is_streaming: bool = False
    """Whether lines of the answer are still to come."""
    failure: int = 0
    """The status that an error has, be it too late to send it."""
    later: list[Callable[[], None]] = field(default_factory=list)
    """What is done when the answer has been sent."""
    known_client: Client | None = None
    """Who asks, where a function wanted to know; then the log says so."""

    @property
    def settings(self) -> Settings:
        """The application's."""
        return self.app.settings

    @property
    def client(self) -> Client:
        """Who asks."""
        if self.known_client is None:
            self.known_client = clients.find(
                self.request.headers.get("X-Forwarded-For"),
                self.request.remote_addr,
                self.settings.web.trusted_proxies,
            )
        return self.known_client

    def afterwards(self, function: Callable[[], None]) -> None:
        """Do something when the answer has been sent. What it raises is only logged.

        Only the next request of the same connection waits for it. Where the platform takes the
        processor away with the answer, it goes on with a later request: what must happen has no
        place here.
        """
        self.later.append(function)

    @property
    def session_token(self) -> str | None:
        """The token in the session cookie."""
        return self._cookie(self.settings.web.cookie_name)

    @property
    def express_sid(self) -> str | None:
        """The id of the old server's session, if its cookie proves one."""
        value = self._cookie(express_sessions.COOKIE_NAME)
        if value is None or not self.settings.credentials.express_sessions:
            return None
        return express_sessions.session_id(value, self.settings.credentials.session_secrets)

    @property
    def bearer_token(self) -> str | None:
        """The token in the header `Authorization: Bearer …` (RFC 6750, section 2.1).

        Or the password of `Basic …` (RFC 7617), whatever the user's name, where it is taken. A
        browser sends that by itself, so that it must not be on an endpoint that changes anything.
        """
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        given = self.request.authorization if self.takes_basic else None
        return given.password if given is not None and given.type == "basic" else None

    def _cookie(self, name: str) -> str | None:
        """Give the value of a cookie, but not if there are several.

        All but one of them come from elsewhere, such as a sibling domain's page, and nothing tells
        which: their order is no help (RFC 6265, section 4.2.2).
        """
        values = set(self.request.cookies.getlist(name))
        if len(values) > 1:
            self.log["cause"] = "several cookies of one name"
        return values.pop() if len(values) == 1 else None

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
