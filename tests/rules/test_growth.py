"""What a caller with a right password, a session or an ID token can make grow has an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from tests.support import express
from tests.support.emulator import Emulator, running_emulator
from tests.support.google import SIGN_IN_SOURCE, Providers
from tests.support.postgres import Server

PASSWORD, OTHER = "correct horse battery staple", "another long passphrase"
ENOUGH, MORE = 25, 10
"""Calls after which every limit has been reached, and calls after those."""
_numbers = count(1)


@pytest.fixture(scope="module")
def limited(postgres: Server, old_database: str, providers: Providers) -> Iterator[Emulator]:
    """An emulator with low limits that takes every kind of proof."""
    settings = providers.settings | {
        "DATABASE_URL": postgres.url(old_database),
        "SESSION_SECRET": express.SECRETS,
        "TRUSTED_PROXIES": "1",
        "MAX_LOGINS": "5",
        "MAX_CLIENT_ATTEMPTS": "5",
    }
    with running_emulator(source=SIGN_IN_SOURCE, **settings) as running:
        yield running


@dataclass
class Caller:
    """Somebody with an account, in one browser, at an address of their own."""

    client: httpx.Client
    providers: Providers
    address: str
    token: str
    cookie: str = ""
    """A session of the old server."""
    passwords: tuple[str, str] = (PASSWORD, OTHER)
    """The present one, and the next."""

    def log_in(self) -> None:
        self._post("/api/login", email=self.address, password=PASSWORD)

    def log_in_elsewhere(self) -> None:
        self.client.cookies.clear()
        self.log_in()

    def log_in_and_out(self) -> None:
        self.log_in()
        self._post("/api/logout")

    def log_in_and_out_everywhere(self) -> None:
        self.log_in()
        self._post("/api/logout", everywhere=True)

    def change_the_password(self) -> None:
        current, new = self.passwords
        if self._post("/api/password", currentPassword=current, newPassword=new) == 200:
            self.passwords = new, current

    def repeat_an_id_token(self) -> None:
        self._post("/api/auth/google", idToken=self.token)

    def get_an_id_token(self) -> None:
        token = self.providers.google_token(sub=self.address, email=self.address, n=next(_numbers))
        self._post("/api/auth/google", idToken=token)

    def get_a_new_name_at_firebase(self) -> None:
        uid = f"{self.address}-{next(_numbers)}"
        token = self.providers.firebase_token(subject=self.address, email=self.address, sub=uid)
        self._post("/api/auth/google", idToken=token)

    def exchange_and_log_out(self) -> None:
        self.client.cookies.clear()
        self.client.get("/api/user", headers={"Cookie": self.cookie})
        self._post("/api/logout")

    def _post(self, path: str, **body: object) -> int:
        status = self.client.post(path, json=body).status_code
        assert status < 500
        return status


OPERATIONS: list[Callable[[Caller], None]] = [
    Caller.log_in,
    Caller.log_in_elsewhere,
    Caller.log_in_and_out,
    Caller.log_in_and_out_everywhere,
    Caller.change_the_password,
    Caller.repeat_an_id_token,
    Caller.get_an_id_token,
    Caller.get_a_new_name_at_firebase,
    Caller.exchange_and_log_out,
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_the_same_call_over_and_over_stops_to_write_rows(
    limited: Emulator,
    postgres: Server,
    old_database: str,
    providers: Providers,
    address: str,
    operation: Callable[[Caller], None],
) -> None:
    network = f"192.0.2.{next(_numbers) % 256}"
    with limited.client(headers={"X-Forwarded-For": network}) as client:
        token = providers.google_token(sub=address, email=address)
        caller = Caller(client, providers, address, token)
        if "id_token" in operation.__name__ or "firebase" in operation.__name__:
            caller.get_an_id_token()
        else:
            user = client.post("/api/signup", json={"email": address, "password": PASSWORD}).json()
            sess = json.dumps({"cookie": {}, "userId": user["id"]})
            express.add(postgres, old_database, address, sess)
            caller.cookie = express.sign(address)
        before = _rows(postgres, old_database)
        for _ in range(ENOUGH):
            operation(caller)
        grown = _rows(postgres, old_database)
        assert grown > before
        for _ in range(MORE):
            operation(caller)
        assert _rows(postgres, old_database) == grown


def _rows(postgres: Server, database: str) -> int:
    """Count all rows, but for those of ID tokens: each token has one, for an hour at most."""
    ((rows,),) = postgres.run(
        "SELECT (SELECT count(*) FROM auth_events) + (SELECT count(*) FROM revoked_sessions)"
        " + (SELECT count(*) FROM identities) + (SELECT count(*) FROM users)"
        " + (SELECT count(*) FROM auth_attempts WHERE key NOT LIKE 'id-token %')",
        database,
    )
    return int(rows)
