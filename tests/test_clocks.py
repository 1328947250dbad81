"""One instance's clock is wrong, and the others' promises hold all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from shared.users import User
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.waiting import until

PASSWORD = "correct horse battery staple"
NEW = "another long passphrase"
MINUTE, HOUR, DAY = 60, 3600, 86400
SOURCE = f"{ROOT}/tests/support/wrong_clock.py"
HOME, ELSEWHERE = {"X-Forwarded-For": "203.0.113.7"}, {"X-Forwarded-For": "198.51.100.9"}


class Site:
    """Instances on one database, each with a clock of its own."""

    def __init__(self, server: Server, database: str, stack: ExitStack) -> None:
        self._server, self._database, self._stack = server, database, stack

    def start(self, *, wrong_by: float = 0, **settings: str) -> Emulator:
        limits = {"TRUSTED_PROXIES": "1", "MAX_LOGIN_ATTEMPTS": "5", "LOCKOUT_TIME": "900000"}
        own = {"DATABASE_URL": self._server.url(self._database), "TEST_CLOCK": str(wrong_by)}
        return self._stack.enter_context(
            running_emulator(source=SOURCE, **(limits | own | settings))
        )

    def run(self, sql: str) -> list[list[Any]]:
        return self._server.run(sql, self._database)

    def clean_up_by(self, instance: Emulator) -> None:
        """Have an instance that has just started clean up, as its first login makes it do."""
        self.run(
            "INSERT INTO auth_attempts (key, remaining, expires_at)"
            " VALUES ('expired', 0, '2020-01-01Z')"
        )
        with instance.client(headers=ELSEWHERE) as client:
            _log_in(client, "nobody@example.com", "x")
        until(lambda: not self.run("SELECT FROM auth_attempts WHERE key = 'expired'"))


@pytest.fixture
def site(postgres: Server, database: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(postgres, database, stack)


def _sign_up(client: httpx.Client, email: str) -> User:
    answer = client.post("/api/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201
    return User(**answer.json())


def _log_in(client: httpx.Client, email: str, password: str = PASSWORD) -> int:
    return client.post("/api/login", json={"email": email, "password": password}).status_code


def _may_change_the_password(instance: Emulator, cookie: str) -> bool:
    """Tell whether a session still may, without a change."""
    headers = ELSEWHERE | {"Cookie": f"session={cookie}"}
    change = {"currentPassword": "a wrong guess", "newPassword": NEW}
    with instance.client(headers=headers) as client:
        status = client.post("/api/password", json=change).status_code
    assert status in (401, 403)
    return status == 403


@pytest.mark.parametrize("wrong_by", [16 * MINUTE, 31 * DAY, 100 * DAY])
def test_a_login_where_the_clock_runs_ahead_opens_revives_and_deletes_nothing(
    site: Site, wrong_by: float
) -> None:
    right, wrong = site.start(), site.start(wrong_by=wrong_by)
    with right.client(headers=HOME) as client:
        _sign_up(client, "ada@example.com")
        cookie = client.cookies["session"]
        assert client.post("/api/logout").status_code == 200
        for _ in range(5):
            _log_in(client, "ada@example.com", "a wrong guess")
        assert _log_in(client, "ada@example.com") == 401
    before = site.run("SELECT id, at, kind FROM auth_events ORDER BY id")
    assert len(before) == 8
    site.clean_up_by(wrong)
    for instance in (wrong, right):
        with instance.client(headers=HOME) as client:
            assert _log_in(client, "ada@example.com") == 401, "the account is locked"
    assert not _may_change_the_password(right, cookie), "the session was logged out"
    after = site.run("SELECT id, at, kind FROM auth_events")
    assert [row for row in before if row not in after] == []


@pytest.mark.parametrize("wrong_by", [-HOUR, -16 * MINUTE, DAY])
def test_a_lock_lasts_as_long_as_it_should_whatever_the_clock_of_the_instance_that_set_it(
    site: Site, wrong_by: float
) -> None:
    right = site.start(MAX_CLIENT_ATTEMPTS="10")
    wrong = site.start(wrong_by=wrong_by, MAX_CLIENT_ATTEMPTS="10")
    with right.client(headers=ELSEWHERE) as client:
        _sign_up(client, "ada@example.com")
    with wrong.client(headers=HOME) as client:
        for _ in range(10):
            _log_in(client, "ada@example.com", "a wrong guess")
    for instance in (right, wrong):
        with instance.client(headers=HOME) as client:
            body = {"email": "ada@example.com", "password": PASSWORD}
            answer = client.post("/api/login", json=body)
        assert answer.status_code == 429
        assert 600 < int(answer.headers["Retry-After"]) <= 900
    ((least, most),) = site.run(
        "SELECT extract(epoch FROM min(expires_at) - now())::int,"
        " extract(epoch FROM max(expires_at) - now())::int FROM auth_attempts"
    )
    assert 600 < least <= most <= 900


def test_what_is_written_down_of_an_instance_whose_clock_runs_ahead_is_of_no_time_to_come(
    site: Site,
) -> None:
    wrong = site.start(wrong_by=DAY)
    with wrong.client(headers=HOME) as client:
        _sign_up(client, "ada@example.com")
        _log_in(client, "ada@example.com")
        _log_in(client, "ada@example.com", "a wrong guess")
        client.post("/api/logout", json={"everywhere": True})
    assert site.run("SELECT kind FROM auth_events WHERE at > now()") == []
    assert len(site.run("SELECT FROM auth_events")) >= 4


def test_a_lock_that_ends_later_than_it_can_have_been_set_has_ended(site: Site) -> None:
    """An instance that ran ahead set it, with the code before this was so."""
    right = site.start()
    with right.client(headers=HOME) as client:
        _sign_up(client, "ada@example.com")
        for _ in range(6):
            _log_in(client, "ada@example.com", "a wrong guess")
        assert _log_in(client, "ada@example.com") == 401
        site.run("UPDATE auth_attempts SET expires_at = expires_at + interval '24 hours'")
        assert _log_in(client, "ada@example.com") == 200
        for _ in range(6):
            _log_in(client, "ada@example.com", "a wrong guess")
        assert _log_in(client, "ada@example.com") == 401
