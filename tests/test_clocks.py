"""Where an instance's clock is wrong, or is set, what was promised holds all the same."""

from __future__ import annotations

import functools
import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared import runtime
from shared.breaker import Breaker
from shared.errors import StoreAway
from shared.tokens import SESSION_SECONDS, SessionTokens
from shared.users import User
from tests.support import outage
from tests.support.emulator import ROOT, SECRET, Emulator, running_emulator
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


@pytest.mark.parametrize("wrong_by", [-HOUR, 31 * DAY])
def test_who_logs_out_where_the_clock_is_wrong_is_logged_out_everywhere(
    site: Site, wrong_by: float
) -> None:
    right, wrong = site.start(), site.start(wrong_by=wrong_by)
    with right.client(headers=HOME) as client:
        _sign_up(client, "ada@example.com")
        cookie = client.cookies["session"]
    with wrong.client(headers=HOME, cookies={"session": cookie}) as client:
        assert client.post("/api/logout").status_code == 200
    assert not _may_change_the_password(right, cookie)


def test_where_the_clock_is_slow_a_session_that_was_logged_out_does_not_live_again_at_its_end(
    site: Site,
) -> None:
    right, slow = site.start(), site.start(wrong_by=-HOUR)
    with right.client(headers=HOME) as client:
        user = _sign_up(client, "ada@example.com")
        begun = time.time() - SESSION_SECONDS - HOUR / 2
        cookie = SessionTokens([SECRET]).issue(user, begun).text
        assert _may_change_the_password(slow, cookie), "it goes on, by the clock there"
    headers = {"Cookie": f"session={cookie}"}
    with slow.client(headers=headers) as client:
        assert client.post("/api/logout").status_code == 200
    site.clean_up_by(site.start())
    assert not _may_change_the_password(slow, cookie)


def test_how_fresh_a_sign_in_is_goes_by_the_databases_clock(site: Site) -> None:
    slow = site.start(wrong_by=-HOUR)
    user = User(str(uuid.uuid4()), "ada@example.com", None, "google")
    site.run(
        "INSERT INTO users (id, email, email_key, provider)"
        f" VALUES ('{user.id}', '{user.email}', '{user.email}', 'google')"
    )
    signed_in = time.time() - HOUR - 5 * MINUTE
    cookie = SessionTokens([SECRET]).issue(user, signed_in, method="google").text
    with slow.client(headers=HOME | {"Cookie": f"session={cookie}"}) as client:
        answer = client.post("/api/password", json={"newPassword": NEW})
    assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required")


@pytest.mark.parametrize(
    ("wrong_by", "told"), [(0, []), (DAY, [(DAY, "ahead of")]), (-HOUR, [(HOUR, "behind")])]
)
def test_an_operator_is_told_once_of_a_clock_that_is_wrong(
    site: Site, wrong_by: float, told: list[tuple[float, str]]
) -> None:
    instance = site.start(wrong_by=wrong_by)
    with instance.client(headers=HOME) as client:
        for _ in range(2):
            assert client.get("/api/health").json()["database"]["status"] == "connected"
            _log_in(client, "ada@example.com")
    sentence = r"The clock here is (\d+) seconds (ahead of|behind) the database's"
    found = [re.fullmatch(sentence, line["message"]) for line in instance.log()]
    expected: list[Any] = [(pytest.approx(seconds, abs=MINUTE), order) for seconds, order in told]
    assert [(int(match[1]), match[2]) for match in found if match] == expected


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


# When the clock is set


class Clocks:
    """What this process reads, of which both can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wrong_by = 0.0
        self.passed = 0.0
        wall, monotonic = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: wall() + self.wrong_by + self.passed)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.passed)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_after_the_clock_ran_ahead_snapshots_are_taken_and_what_expired_is_deleted_as_before(
    postgres: Server, database: str, tmp_path: Path, clocks: Clocks
) -> None:
    def expired() -> list[list[Any]]:
        return postgres.run("SELECT FROM auth_attempts WHERE key = 'expired'", database)

    with outage.running_site(postgres, database, tmp_path, FALLBACK="readonly") as site:
        clocks.wrong_by = 6 * HOUR
        outage.token_of(site.sign_up("ada@example.com"))
        taken_at = site.app.store.fallback().snapshot  # type: ignore[union-attr]
        assert taken_at is not None
        clocks.wrong_by = 0
        assert taken_at > time.time() + 5 * HOUR
        clocks.passed = runtime.CLEAN_UP_SECONDS
        postgres.run(
            "INSERT INTO auth_attempts (key, remaining, expires_at)"
            " VALUES ('expired', 0, '2020-01-01Z')",
            database,
        )
        assert site.log_in("ada@example.com").status_code == 200
        assert expired() == []
        taken_at = site.app.store.fallback().snapshot  # type: ignore[union-attr]
        assert taken_at is not None
        assert taken_at < time.time()


def test_in_an_outage_in_which_the_clock_is_corrected_the_snapshot_serves(
    postgres: Server, database: str, tmp_path: Path, clocks: Clocks
) -> None:
    with outage.running_site(postgres, database, tmp_path, FALLBACK="readonly") as site:
        clocks.wrong_by = 6 * HOUR
        site.sign_up("ada@example.com")
        site.take_snapshot()
        site.leave()
        clocks.wrong_by = 0
        assert site.log_in("ada@example.com").status_code == 200


@pytest.mark.parametrize("wrong_by", [6 * HOUR, -6 * HOUR])
def test_an_outage_lasts_as_long_as_it_lasts_whatever_becomes_of_the_clock(
    clocks: Clocks, capsys: pytest.CaptureFixture[str], wrong_by: float
) -> None:
    def probe(_: float) -> None:
        raise StoreAway

    tried = Breaker(probe, lambda: None)
    tried.trip()
    clocks.wrong_by = wrong_by
    clocks.passed = 50
    assert 50 <= (tried.seconds or 0) < 110
    tried.close()
    assert tried.seconds is None
    _, line = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert 50 <= line["seconds"] < 110


def test_an_alert_goes_by_how_long_the_database_has_been_away(
    postgres: Server, database: str, tmp_path: Path, clocks: Clocks
) -> None:
    def states() -> dict[str, str]:
        seconds, now = runtime.seconds_away(), time.monotonic()
        return {alert.name: alert.state for alert in runtime.alerts().judge(seconds, now)}

    variables = {"FALLBACK": "off", "ALERT_DATABASE_AWAY": "60"}
    with (
        outage.running_site(postgres, database, tmp_path, **variables) as site,
        ExitStack() as stack,
    ):
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(runtime, "settings", lambda: site.app.settings)
        patch.setattr(runtime, "_store", functools.cache(lambda: site.app.store))
        runtime.store()
        site.leave()
        assert site.log_in("ada@example.com").status_code == 503
        clocks.wrong_by = 6 * HOUR
        assert states()["database_away"] == "resolved"
        clocks.wrong_by, clocks.passed = -6 * HOUR, 60
        assert states()["database_away"] == "firing"
