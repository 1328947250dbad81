"""GET /api/stats: for administrators, and what it tells on each store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from shared.model.users import User
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.forged import KEY
from tests.support.google import AUDIENCE, SERVICE_ACCOUNT, certificate_server
from tests.support.in_process import served
from tests.support.outage import running_site
from tests.support.postgres import Server

TOKEN = "QWRtaW4gb2YgdGhlIHN0YXRpc3RpY3MsIGFuZCBub2JvZHkgZWxzZQ"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
NUMBERS = {
    "total_users",
    "local_users",
    "google_users",
    "firebase_google_users",
    "users_last_week",
    "users_last_month",
}
OF_EVENTS = {"logins", "outcomes", "login_failures", "login_hours"}


def _user(email: str, provider: str = "local") -> User:
    return User(str(uuid.uuid4()), email, None, provider)


@pytest.fixture(scope="module")
def emulator(
    postgres: Server,
    make_database: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Emulator]:
    """The whole API, for administrators of both kinds."""
    with (
        certificate_server(tmp_path_factory.mktemp("google"), KEY) as google,
        running_emulator(
            source=f"{ROOT}/tests/support/admin_functions.py",
            target="routed",
            ADMIN_TOKEN=TOKEN,
            ADMIN_AUDIENCE=AUDIENCE,
            ADMIN_SERVICE_ACCOUNT=SERVICE_ACCOUNT,
            TEST_CERTIFICATES_URL=google.url,
            SSL_CERT_FILE=str(google.authority.certificate),
            DATABASE_URL=postgres.url(make_database()),
        ) as running,
    ):
        yield running


def _get(emulator: Emulator, query: str = "", **headers: str) -> httpx.Response:
    with emulator.client(headers=headers or ADMIN) as client:
        return client.get(f"/api/stats{query}")


def test_the_answer_has_the_old_numbers_and_each_day_and_hour_of_the_window(
    emulator: Emulator,
) -> None:
    with emulator.client() as client:
        for password in ("correct horse battery", "wrong"):
            ada = {"email": "ada@example.com", "password": password}
            client.post("/api/signup", json=ada)
            client.post("/api/login", json=ada)
    answer = _get(emulator)
    assert answer.status_code == 200, emulator.output()
    found = answer.json()
    assert found.keys() == NUMBERS | {"window", "registrations"} | OF_EVENTS
    assert {name: found[name] for name in NUMBERS} == {
        "total_users": 1,
        "local_users": 1,
        "google_users": 0,
        "firebase_google_users": 0,
        "users_last_week": 1,
        "users_last_month": 1,
    }
    for name in ("registrations", "logins"):
        days = [day["day"] for day in found[name]]
        first = datetime.fromisoformat(found["window"]["first"])
        assert days == [str((first + timedelta(days=n)).date()) for n in range(30)]
        assert (days[0], days[-1]) == (found["window"]["first"], found["window"]["last"])
        assert found[name][0]["providers"] == {"local": 0, "google": 0, "firebase-google": 0}
        assert sum(day["providers"]["local"] for day in found[name]) == 1
    assert found["outcomes"] == {"signup": 1, "login": 1, "login_failed": 1, "logout": 1}
    assert found["login_failures"] == {
        "unknown_account": 0,
        "wrong_password": 1,
        "too_many_attempts": 0,
    }
    assert [len(hours) for hours in found["login_hours"]] == [24] * 7
    assert sum(map(sum, found["login_hours"])) == 1


@pytest.mark.parametrize("days", [1, 366])
def test_a_window_has_as_many_days_as_are_asked_for(emulator: Emulator, days: int) -> None:
    found = _get(emulator, f"?days={days}").json()
    assert len(found["registrations"]) == len(found["logins"]) == found["window"]["days"] == days


@pytest.mark.parametrize(
    "query",
    [
        *("=0", "=367", "=-1", "=1.5", "=1e2", "=", "", "=x", "=%C2%B2", "=%D9%A1", "=+1", "=%2B1"),
        *("=1&days=1", "=" + "9" * 5000, "=1%00", "[]=1&days=0"),
    ],
)
def test_any_other_window_is_a_problem_that_names_it(emulator: Emulator, query: str) -> None:
    answer = _get(emulator, f"?days{query}")
    assert answer.status_code == 400
    problem = answer.json()
    assert (problem["code"], problem["field"]) == ("invalid_input", "days")
    assert problem["error"] == "The days must be a whole number from 1 to 366"


def test_it_is_for_administrators_only(emulator: Emulator) -> None:
    assert _get(emulator, Accept="*/*").status_code == 401
    assert _get(emulator, Authorization="Bearer x").status_code == 401
    assert _get(emulator, "?days=x", Authorization="Bearer x").status_code == 401
    stranger = KEY.token({"email": "stranger@example.com"})
    assert _get(emulator, Authorization=f"Bearer {stranger}").status_code == 403
    assert _get(emulator, Authorization=f"Bearer {KEY.token()}").status_code == 200


def test_without_an_administrator_there_is_no_such_path(tmp_path: Path) -> None:
    with served(USERS_FILE=str(tmp_path / "users.json")) as app:
        assert app.send("GET", "/api/stats", ADMIN.items()).status_code == 404


def test_head_has_the_headers_and_nothing_else_is_allowed(emulator: Emulator) -> None:
    with emulator.client(headers=ADMIN) as client:
        head = client.head("/api/stats")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["Content-Length"]) > 0
        assert head.headers["Cache-Control"] == "no-store"
        refused = client.post("/api/stats", json={})
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_on_a_file_there_are_users_and_nothing_of_events(tmp_path: Path) -> None:
    with served(USERS_FILE=str(tmp_path / "users.json"), ADMIN_TOKEN=TOKEN) as app:
        app.store.create_user(_user("ada@example.com"), "hash")
        found = app.send("GET", "/api/stats?days=2", ADMIN.items()).json
    assert found is not None
    assert (found["total_users"], found["users_last_week"]) == (1, 1)
    assert sum(day["providers"]["local"] for day in found["registrations"]) == 1
    assert {name: found[name] for name in OF_EVENTS} == dict.fromkeys(OF_EVENTS)


@pytest.mark.parametrize("fallback", ["full", "readonly", "off"])
def test_while_postgres_is_away_there_are_no_numbers(
    postgres: Server, database: str, tmp_path: Path, fallback: str
) -> None:
    settings = {"FALLBACK": fallback, "ADMIN_TOKEN": TOKEN}
    with running_site(postgres, database, tmp_path, **settings) as site:
        assert site.app.send("GET", "/api/stats", ADMIN.items()).status_code == 200
        site.leave()
        answer = site.app.send("GET", "/api/stats", ADMIN.items())
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
