"""The functions before a database that can be taken away from them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from werkzeug.test import TestResponse

from shared.model.users import User
from tests.support.in_process import Served, served
from tests.support.postgres import Server
from tests.support.relay import Relay
from tests.support.stores import TOKENS
from tests.support.waiting import until

ADMIN = "YWRtaW4gdG9rZW4gZm9yIHRlc3RzIG9ubHksIG9rYXk"
PASSWORD = "correct horse battery staple"
RECOVERY_SECONDS = 5.0
"""Within which an instance has to find out by itself that its database is back."""
_AWAY = 10**9
_JSON = ("Content-Type", "application/json")


class Site:
    """One instance, its users file, and the line to its database."""

    def __init__(self, app: Served, relay: Relay) -> None:
        self.app = app
        self.file = app.settings.store.users_file
        self._relay = relay
        self._rest()

    def _rest(self) -> None:
        """Have a snapshot only where a test takes one."""
        self.app.application.janitor._next = float("inf")

    def restart(self) -> None:
        """End the process, and start another one."""
        self.app.restart()
        self._rest()

    def leave(self) -> None:
        """Take the database away: connections end, and new ones are hung up on."""
        self._relay.hang_up = _AWAY
        self.app.store.close()

    def come_back(self) -> None:
        """Give it back, and wait until the instance knows."""
        self._relay.hang_up = 0
        until(lambda: self.health()["fallback"]["since"] is None, RECOVERY_SECONDS)

    def call(
        self, method: str, path: str, token: str | None = None, **members: object
    ) -> TestResponse:
        """Call a function with a session and members of a JSON body."""
        headers = [_JSON] if members else []
        if token is not None:
            headers.append(("Cookie", f"session={token}"))
        return self.app.send(
            method, path, headers, json.dumps(members).encode() if members else b""
        )

    def sign_up(self, email: str, password: str = PASSWORD) -> TestResponse:
        return self.call("POST", "/api/signup", email=email, password=password)

    def log_in(self, email: str, password: str = PASSWORD) -> TestResponse:
        return self.call("POST", "/api/login", email=email, password=password)

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "/api/health").json or {}
        return found

    def pending(self) -> list[dict[str, Any]]:
        """Read who is pending, without the code under test."""
        records = json.loads(self.file.read_bytes()) if self.file.exists() else []
        return [record for record in records if "pending" in record]

    def take_snapshot(self) -> None:
        """Take one as a running instance does."""
        self.app.store.clean_up()
        assert self.health()["fallback"]["snapshot"]


def token_of(answer: TestResponse) -> str:
    """Give the session's token of an answer that began one."""
    assert answer.status_code in (200, 201), answer.text
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


def stale(token: str) -> str:
    """Make the token that the session had if it began eleven minutes earlier."""
    now = time.time()
    session = TOKENS.read(token, now)
    past = session._replace(auth_time=int(now) - 660, ends_at=session.ends_at - 660)
    return TOKENS.issue(session.user, now - 660, renews=past).text


def new_user(email: str) -> User:
    return User(id=str(uuid.uuid4()), email=email, name=None, provider="local")


@contextmanager
def running_site(postgres: Server, database: str, folder: Path, **settings: str) -> Iterator[Site]:
    """Serve the functions with short deadlines and a line that can be cut."""
    deadlines = {
        "DATABASE_TIMEOUT": "3",
        "DATABASE_CONNECT_TIMEOUT": "2",
        "DATABASE_STATEMENT_TIMEOUT": "1",
        "USERS_FILE": str(folder / "users.json"),
    }
    with (
        Relay(postgres.port) as relay,
        served(
            DATABASE_URL=postgres.url(database, port=relay.port), **(deadlines | settings)
        ) as app,
    ):
        yield Site(app, relay)
