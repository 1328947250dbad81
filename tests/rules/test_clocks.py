"""Where an instance's clock is wrong, or is set, what was promised holds all the same."""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.application import Application
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.database import breaker
from shared.database.breaker import Breaker
from shared.errors import StoreUnreachable
from shared.model.sessions import SESSION_SECONDS
from shared.model.users import User
from shared.store import janitor
from tests.support import outage
from tests.support.emulator import ROOT, SECRET, Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.stores import user_of
from tests.support.waiting import until

PASSWORD = "correct horse battery staple"
NEW = "another long passphrase"
MINUTE, HOUR, DAY = 60, 3600, 86400
SOURCE = f"{ROOT}/tests/support/wrong_clock.py"
_numbers = itertools.count(1)

Network = dict[str, str]
"""The header that says from where a request comes."""


class Site:
    """Instances on one database, each with a clock of its own."""

    def __init__(self, server: Server, database: str, stack: ExitStack) -> None:
        self._server, self._database, self._stack = server, database, stack
        self._instances: dict[float, Emulator] = {}

    def starting(self, wrong_by: float = 0) -> AbstractContextManager[Emulator]:
        """Start one more instance whose clock is wrong by so many seconds."""
        return running_emulator(
            source=SOURCE,
            DATABASE_URL=self._server.url(self._database),
            TEST_CLOCK=str(wrong_by),
            TRUSTED_PROXIES="1",
            MAX_LOGIN_ATTEMPTS="5",
            MAX_CLIENT_ATTEMPTS="20",
            LOCKOUT_TIME="900000",
        )

    def instance(self, wrong_by: float = 0) -> Emulator:
        """Give the instance with that clock."""
        if wrong_by not in self._instances:
            self._instances[wrong_by] = self._stack.enter_context(self.starting(wrong_by))
        return self._instances[wrong_by]

    def run(self, sql: str) -> list[list[Any]]:
        return self._server.run(sql, self._database)

    def clean_up_by(self, instance: Emulator) -> None:
        """Have an instance that has just started clean up, as its first login makes it do."""
        self.run(
            "INSERT INTO auth_attempts (key, remaining, expires_at)"
            " VALUES ('expired', 0, '2020-01-01Z')"
        )
        with instance.client(headers=_network()) as client:
            _log_in(client, "nobody@example.com", "x")
        until(lambda: not self.run("SELECT FROM auth_attempts WHERE key = 'expired'"))


@pytest.fixture(scope="module")
def site(postgres: Server, make_database: Callable[[], str]) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(postgres, make_database(), stack)


def _network() -> Network:
    number = next(_numbers)
    return {"X-Forwarded-For": f"10.0.{number // 256}.{number % 256}"}


@pytest.fixture
def home() -> Network:
    return _network()


def _sign_up(client: httpx.Client, email: str) -> User:
    answer = client.post("/api/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201
    return user_of(answer.json())


def _log_in(client: httpx.Client, email: str, password: str = PASSWORD) -> int:
    return client.post("/api/login", json={"email": email, "password": password}).status_code


def _may_change_the_password(instance: Emulator, cookie: str) -> bool:
    """Tell whether a session still may, without a change."""
    headers = _network() | {"Cookie": f"session={cookie}"}
    change = {"currentPassword": "a wrong guess", "newPassword": NEW}
    with instance.client(headers=headers) as client:
        status = client.post("/api/password", json=change).status_code
    assert status in (401, 403)
    return status == 403


@pytest.mark.parametrize("wrong_by", [16 * MINUTE, 31 * DAY, 100 * DAY])
def test_a_login_where_the_clock_runs_ahead_opens_revives_and_deletes_nothing(
    site: Site, home: Network, address: str, wrong_by: float
) -> None:
    right = site.instance()
    with right.client(headers=home) as client:
        _sign_up(client, address)
        cookie = client.cookies["session"]
        assert client.post("/api/logout").status_code == 200
        for _ in range(5):
            _log_in(client, address, "a wrong guess")
        assert _log_in(client, address) == 401
    before = site.run("SELECT id, at, kind FROM auth_events")
    with site.starting(wrong_by) as wrong:
        site.clean_up_by(wrong)
        for instance in (wrong, right):
            with instance.client(headers=home) as client:
                assert _log_in(client, address) == 401, "the account is locked"
    assert not _may_change_the_password(right, cookie), "the session was logged out"
    after = site.run("SELECT id, at, kind FROM auth_events")
    assert [row for row in before if row not in after] == []


@pytest.mark.parametrize("wrong_by", [-HOUR, DAY])
def test_a_lock_lasts_as_long_as_it_should_whatever_the_clock_of_the_instance_that_set_it(
    site: Site, home: Network, address: str, wrong_by: float
) -> None:
    right, wrong = site.instance(), site.instance(wrong_by)
    with right.client(headers=_network()) as client:
        _sign_up(client, address)
    with wrong.client(headers=home) as client:
        for _ in range(20):
            _log_in(client, address, "a wrong guess")
    for instance in (right, wrong):
        with instance.client(headers=home) as client:
            answer = client.post("/api/login", json={"email": address, "password": PASSWORD})
        assert answer.status_code == 429
        assert 600 < int(answer.headers["Retry-After"]) <= 900


def test_what_is_written_down_of_an_instance_whose_clock_runs_ahead_is_of_no_time_to_come(
    site: Site, home: Network, address: str
) -> None:
    with site.instance(DAY).client(headers=home) as client:
        user = _sign_up(client, address)
        _log_in(client, address)
        _log_in(client, address, "a wrong guess")
        client.post("/api/logout", json={"everywhere": True})
    assert site.run("SELECT kind FROM auth_events WHERE at > now()") == []
    assert len(site.run(f"SELECT FROM auth_events WHERE user_id = '{user.id}'")) == 5


@pytest.mark.parametrize("wrong_by", [-HOUR, 31 * DAY])
def test_who_logs_out_where_the_clock_is_wrong_is_logged_out_everywhere(
    site: Site, home: Network, address: str, wrong_by: float
) -> None:
    right = site.instance()
    with right.client(headers=home) as client:
        _sign_up(client, address)
        cookie = client.cookies["session"]
    headers = home | {"Cookie": f"session={cookie}"}
    with site.instance(wrong_by).client(headers=headers) as client:
        assert client.post("/api/logout").status_code == 200
    assert not _may_change_the_password(right, cookie)


def test_where_the_clock_is_slow_a_session_that_was_logged_out_does_not_live_again_at_its_end(
    site: Site, home: Network, address: str
) -> None:
    right, slow = site.instance(), site.instance(-HOUR)
    with right.client(headers=home) as client:
        user = _sign_up(client, address)
    begun = time.time() - SESSION_SECONDS - HOUR / 2
    cookie = SessionTokens(Signing([SECRET])).issue(user, begun).text
    assert _may_change_the_password(slow, cookie), "it goes on, by the clock there"
    with slow.client(headers=home | {"Cookie": f"session={cookie}"}) as client:
        assert client.post("/api/logout").status_code == 200
    with site.starting() as another:
        site.clean_up_by(another)
    assert not _may_change_the_password(slow, cookie)


def test_how_fresh_a_sign_in_is_goes_by_the_databases_clock(
    site: Site, home: Network, address: str
) -> None:
    user = User(str(uuid.uuid4()), address, None, "google")
    site.run(
        "INSERT INTO users (id, email, email_key, provider)"
        f" VALUES ('{user.id}', '{address}', '{address}', 'google')"
    )
    signed_in = time.time() - HOUR - 5 * MINUTE
    cookie = SessionTokens(Signing([SECRET])).issue(user, signed_in, method="google").text
    headers = home | {"Cookie": f"session={cookie}"}
    with site.instance(-HOUR).client(headers=headers) as client:
        answer = client.post("/api/password", json={"newPassword": NEW})
    assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required")


@pytest.mark.parametrize(
    ("wrong_by", "told"), [(0, []), (DAY, [(DAY, "ahead of")]), (-HOUR, [(HOUR, "behind")])]
)
def test_an_operator_is_told_once_of_a_clock_that_is_wrong(
    site: Site, home: Network, address: str, wrong_by: float, told: list[tuple[float, str]]
) -> None:
    instance = site.instance(wrong_by)
    with instance.client(headers=home) as client:
        for _ in range(2):
            assert client.get("/api/health").json()["database"]["status"] == "connected"
            _log_in(client, address)
    sentence = r"The clock here is (\d+) seconds (ahead of|behind) the database's"
    found = [re.fullmatch(sentence, line["message"]) for line in instance.log()]
    expected: list[Any] = [(pytest.approx(seconds, abs=MINUTE), order) for seconds, order in told]
    assert [(int(match[1]), match[2]) for match in found if match] == expected


def test_a_lock_that_ends_later_than_it_can_have_been_set_has_ended(
    site: Site, home: Network, address: str
) -> None:
    """An instance that ran ahead set it, with the code before this was so."""
    with site.instance().client(headers=home) as client:
        _sign_up(client, address)
        for _ in range(6):
            _log_in(client, address, "a wrong guess")
        assert _log_in(client, address) == 401
        site.run("UPDATE auth_attempts SET expires_at = expires_at + interval '24 hours'")
        assert _log_in(client, address) == 200
        for _ in range(6):
            _log_in(client, address, "a wrong guess")
        assert _log_in(client, address) == 401


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


def _taken_at(site: outage.Site) -> float:
    database = site.app.store.database_status
    assert database is not None
    fallback = database.fallback()
    assert fallback.snapshot is not None
    return fallback.snapshot


def test_after_the_clock_ran_ahead_snapshots_are_taken_and_what_expired_is_deleted_as_before(
    postgres: Server, database: str, tmp_path: Path, clocks: Clocks
) -> None:
    def expired() -> list[list[Any]]:
        return postgres.run("SELECT FROM auth_attempts WHERE key = 'expired'", database)

    with outage.running_site(postgres, database, tmp_path, FALLBACK="readonly") as site:
        site.app.application.janitor._next = float("-inf")
        clocks.wrong_by = 6 * HOUR
        outage.token_of(site.sign_up("ada@example.com"))
        taken_at = _taken_at(site)
        clocks.wrong_by = 0
        assert taken_at > time.time() + 5 * HOUR
        clocks.passed = janitor.SECONDS
        postgres.run(
            "INSERT INTO auth_attempts (key, remaining, expires_at)"
            " VALUES ('expired', 0, '2020-01-01Z')",
            database,
        )
        assert site.log_in("ada@example.com").status_code == 200
        assert expired() == []
        taken_at = _taken_at(site)
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


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prober that may be late, because minutes of the clocks pass at once."""
    monkeypatch.setattr(breaker, "OVERDUE", HOUR)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("wrong_by", [6 * HOUR, -6 * HOUR])
def test_an_outage_lasts_as_long_as_it_lasts_whatever_becomes_of_the_clock(
    clocks: Clocks, capsys: pytest.CaptureFixture[str], wrong_by: float
) -> None:
    def probe(_: float) -> None:
        raise StoreUnreachable

    tried = Breaker(probe, lambda: None)
    tried.trip()
    clocks.wrong_by = wrong_by
    clocks.passed = 50
    assert 50 <= (tried.seconds or 0) < 110
    tried.close()
    assert tried.seconds is None
    _, line = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert 50 <= line["seconds"] < 110


@pytest.mark.usefixtures("unhurried")
def test_an_alert_goes_by_how_long_the_database_has_been_away(
    postgres: Server, database: str, tmp_path: Path, clocks: Clocks
) -> None:
    def states(app: Application) -> dict[str, str]:
        judged = app.judge_alerts()
        return {alert.name: alert.state for alert in judged}

    variables = {"FALLBACK": "off", "ALERT_DATABASE_AWAY": "60"}
    with outage.running_site(postgres, database, tmp_path, **variables) as site:
        site.leave()
        assert site.log_in("ada@example.com").status_code == 503
        clocks.wrong_by = 6 * HOUR
        assert states(site.app.application)["database_away"] == "resolved"
        clocks.wrong_by, clocks.passed = -6 * HOUR, 60
        assert states(site.app.application)["database_away"] == "firing"
