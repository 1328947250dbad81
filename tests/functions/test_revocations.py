"""Revocations at once: two processes of the application on one database and one real Redis."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from shared.credentials.passwords import PasswordHasher
from shared.revocations.redis_list import PAUSE
from tests.support.certificates import Authority
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.mails import token_for
from tests.support.outage import ADMIN, PASSWORD
from tests.support.postgres import Server
from tests.support.redis_servers import RedisServer, false_redis, running_redis
from tests.support.transfers import user as imported
from tests.support.waiting import until

NEW = "another horse battery staple"
SOURCE = f"{ROOT}/tests/support/patient_functions.py"
SECONDS = 1.0
"""For which its processes wait for Redis."""
GRACE = 0.3
"""Seconds by which a busy machine may be late."""
_numbers = itertools.count()


@dataclass
class Pair:
    """Two processes, and what they share."""

    here: Emulator
    there: Emulator
    redis: RedisServer
    variables: dict[str, str]

    def call(
        self, at: Emulator, method: str, path: str, session: str = "", **members: object
    ) -> httpx.Response:
        headers = {"Cookie": f"session={session}"} if session else {}
        with at.client() as client:
            return client.request(method, path, headers=headers, json=members or None)

    def sign_up(self) -> tuple[dict[str, object], str]:
        email = f"ada{next(_numbers)}@example.com"
        answer = self.call(self.here, "POST", "/api/signup", email=email, password=PASSWORD)
        assert answer.status_code == 201, answer.text
        return answer.json(), token_of(answer)

    def log_in(self, user: dict[str, object], token: str = "", password: str = PASSWORD) -> str:
        members = {"email": user["email"], "password": password}
        answer = self.call(self.here, "POST", "/api/login", token, **members)
        assert answer.status_code == 200, answer.text
        return token_of(answer)

    def looks_in(self, at: Emulator, token: str) -> int:
        return self.call(at, "GET", "/api/user", token).status_code


def token_of(answer: httpx.Response) -> str:
    assert answer.status_code in (200, 201), answer.text
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


@pytest.fixture(scope="module")
def pair(
    redis_program: str,
    postgres: Server,
    make_database: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Over TLS, as in production."""
    folder = tmp_path_factory.mktemp("revocations")
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(redis_program, Authority(folder)))
        variables = {
            "DATABASE_URL": postgres.url(make_database()),
            "USERS_FILE": str(folder / "users.json"),
            "ENVIRONMENT": "development",
            "SIGN_IN_BY_MAIL": "true",
            "ADMIN_TOKEN": ADMIN,
            "REDIS_URL": redis.url,
        }
        here, there = (
            stack.enter_context(running_emulator(source=SOURCE, **variables)) for _ in range(2)
        )
        yield Pair(here, there, redis, variables)


@pytest.fixture(autouse=True)
def are_connected(pair: Pair) -> None:
    """Both ask Redis again, whatever a test before has done to it."""
    for one in (pair.here, pair.there):
        _wait(pair, one)


def _wait(pair: Pair, at: Emulator) -> None:
    until(lambda: _health(pair, at) == "connected", PAUSE + 5)


def _health(pair: Pair, at: Emulator) -> str:
    return str(pair.call(at, "GET", "/api/health").json()["revocations"]["status"])


def _log_out(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    return pair.call(pair.here, "POST", "/api/logout", token)


def _log_out_everywhere(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    return pair.call(pair.here, "POST", "/api/logout", pair.log_in(user), everywhere=True)


def _change_password(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    members = {"currentPassword": PASSWORD, "newPassword": NEW}
    return pair.call(pair.here, "POST", "/api/password", pair.log_in(user), **members)


def _delete(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    return pair.call(pair.here, "DELETE", "/api/account", pair.log_in(user), password=PASSWORD)


def _log_in_here(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    members = {"email": user["email"], "password": PASSWORD}
    return pair.call(pair.here, "POST", "/api/login", token, **members)


def _reset(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    link = token_for(user, "password_reset")
    return pair.call(pair.here, "POST", "/api/password/reset", token=link, newPassword=NEW)


def _log_in_by_link(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    link = token_for(user, "login_link")
    return pair.call(pair.here, "POST", "/api/login/mail/verify", token=link)


def _change_email(pair: Pair, user: dict[str, object], token: str) -> httpx.Response:
    link = token_for(user, "email_change", f"new.{user['email']}")
    other = pair.log_in(user)
    answer = pair.call(pair.here, "POST", "/api/email/verify", other, token=link)
    assert pair.looks_in(pair.there, token_of(answer)) == 200, "the session that did it goes on"
    return answer


EVENTS = {
    "logout": _log_out,
    "logout everywhere": _log_out_everywhere,
    "a new password": _change_password,
    "deletion": _delete,
    "a login in the same browser": _log_in_here,
    "a reset by a link": _reset,
    "a sign-in by a link on an address that is not proved": _log_in_by_link,
    "a change of the address": _change_email,
}


@pytest.mark.parametrize("event", EVENTS)
def test_what_ends_a_session_ends_it_in_the_other_process_at_once(pair: Pair, event: str) -> None:
    user, token = pair.sign_up()
    _, other = pair.sign_up()
    assert pair.looks_in(pair.there, token) == 200
    answer = EVENTS[event](pair, user, token)
    assert answer.status_code in (200, 204), answer.text
    for process in (pair.there, pair.here):
        answer = pair.call(process, "GET", "/api/user", token)
        assert answer.status_code == 401
        assert answer.json()["code"] == "not_authenticated"
        assert pair.looks_in(process, other) == 200


def test_an_import_and_its_rollback_end_sessions_at_once(pair: Pair) -> None:
    row = imported(next(_numbers), password=PasswordHasher(4).hash(PASSWORD))
    other = row | {"password": PasswordHasher(4).hash(NEW)}

    def migrate(rows: list[dict[str, object]] | None = None, **options: str) -> str:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        with pair.here.client(headers=headers) as client:
            answer = client.post("/api/migrate", params=options, json=rows)
        *_, result = map(json.loads, answer.text.splitlines())
        assert result["event"] == "result", result
        return str(result["batch"])

    first = migrate([row], action="apply")
    token = pair.log_in(row)
    second = migrate([other], action="apply")
    assert pair.looks_in(pair.there, token) == 401
    for batch, password in ((second, NEW), (first, PASSWORD)):
        token = pair.log_in(row, password=password)
        assert pair.looks_in(pair.there, token) == 200
        migrate(action="rollback", batch=batch)
        assert pair.looks_in(pair.there, token) == 401


def test_a_session_that_goes_on_costs_no_statement(pair: Pair) -> None:
    _, token = pair.sign_up()

    def trips() -> str:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        with pair.there.client(headers=headers) as client:
            lines = client.get("/api/metrics").text.splitlines()
        return next(line for line in lines if line.startswith("db_client_round_trips_total"))

    before = trips()
    for _ in range(5):
        assert pair.looks_in(pair.there, token) == 200
    assert trips() == before


def test_a_session_on_the_list_goes_on_where_the_database_knows_it_still(pair: Pair) -> None:
    """The list says too much: of another's epoch, or because somebody has written to Redis."""
    _, token = pair.sign_up()
    pair.redis.run("FLUSHALL")
    assert pair.call(pair.here, "POST", "/api/logout", token).status_code == 200
    (key,) = pair.redis.keys()
    user, other = pair.sign_up()
    with false_redis(lambda taken: taken.sendall(b":2\r\n")) as liar:
        variables = pair.variables | {"REDIS_URL": liar.url}
        with running_emulator(source=SOURCE, **variables) as believer:
            for _ in range(3):
                answer = pair.call(believer, "GET", "/api/user", other)
                assert answer.status_code == 200
                assert answer.json()["id"] == user["id"]
                assert "Set-Cookie" not in answer.headers
            assert pair.looks_in(believer, token) == 401
            assert len(liar.heard) >= 4
    assert pair.redis.run("EXISTS", key) == 1


FAULTS = {
    "killed": RedisServer.killed,
    "frozen": RedisServer.frozen,
    "another password": RedisServer.another_password,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_without_redis_all_is_as_it_is_without_a_list(pair: Pair, fault: str) -> None:
    user, token = pair.sign_up()
    _, other = pair.sign_up()
    assert pair.looks_in(pair.there, token) == 200
    with FAULTS[fault](pair.redis):
        waits = []
        for _ in range(5):
            started = time.monotonic()
            assert pair.looks_in(pair.there, other) == 200
            waits.append(time.monotonic() - started)
        assert max(waits) < SECONDS + GRACE
        started = time.monotonic()
        assert pair.call(pair.here, "POST", "/api/logout", token).status_code == 200
        assert time.monotonic() - started < SECONDS + GRACE + 1
        assert pair.looks_in(pair.there, token) == 200, "for ten minutes at most, as ever"
        assert pair.call(pair.there, "GET", "/api/account", token).status_code == 401
        assert _change_password(pair, user, "").status_code == 200
        assert pair.log_in(user, password=NEW)
        assert _health(pair, pair.there) == "disconnected"
    _wait(pair, pair.there)
    _wait(pair, pair.here)
    _, late = pair.sign_up()
    assert _log_out(pair, user, late).status_code == 200
    assert pair.looks_in(pair.there, late) == 401


def test_a_full_or_flushed_redis_has_less_to_tell_and_keeps_nobody_out(pair: Pair) -> None:
    user, token = pair.sign_up()
    with pair.redis.full():
        assert _log_out(pair, user, token).status_code == 200
        assert pair.looks_in(pair.there, token) == 200
    warnings = [line for line in pair.here.log() if "refuses the list" in line["message"]]
    assert warnings[-1]["cause"] == "it is full (maxmemory)"
    user, token = pair.sign_up()
    assert _log_out(pair, user, token).status_code == 200
    assert pair.looks_in(pair.there, token) == 401
    pair.redis.run("FLUSHALL")
    assert pair.looks_in(pair.there, token) == 200
    assert pair.call(pair.there, "GET", "/api/account", token).status_code == 401


def test_the_dashboard_and_the_metrics_show_it(pair: Pair) -> None:
    user, token = pair.sign_up()
    assert _log_out(pair, user, token).status_code == 200
    with pair.here.client(auth=("me", ADMIN)) as client:
        page = client.get("/api/dashboard").text
        found = client.get("/api/metrics").text
    assert "<dt>list of revocations</dt><dd>Connected</dd>" in page
    assert "reads and writes of the list of revocations" in page
    name = "revocation_list_operation_duration_seconds_count"
    assert f'{name}{{operation="write",outcome="ok"}}' in found
    assert "revocation_list_away 0.0" in found


def test_no_line_of_the_log_and_no_key_has_a_secret(pair: Pair) -> None:
    user, token = pair.sign_up()
    assert _log_out(pair, user, token).status_code == 200
    told = pair.here.output() + pair.there.output() + "".join(pair.redis.keys())
    assert "canary" not in told, "Redis's password"
    assert str(user["email"]) not in told


def test_without_the_setting_nothing_of_it_is_there(pair: Pair) -> None:
    variables = pair.variables | {"REDIS_URL": ""}
    with running_emulator(**variables) as without:
        assert "revocations" not in pair.call(without, "GET", "/api/health").json()
        _, token = pair.sign_up()
        assert pair.call(without, "POST", "/api/logout", token).status_code == 200
        assert pair.looks_in(pair.there, token) == 200, "nobody has told it"
