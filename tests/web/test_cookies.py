"""Cookies that somebody else put beside ours: nobody becomes another user by them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder, TestResponse

from shared.application import Application
from shared.settings import Settings
from shared.web.call import Call
from tests.support.emulator import SECRET
from tests.support.express import sign
from tests.support.in_process import Served, served

PASSWORD = "correct horse battery staple"
JSON = ("Content-Type", "application/json")


@pytest.fixture
def development(tmp_path: Path) -> Iterator[Served]:
    """The functions with a cookie that a sibling domain's page can set, too."""
    with served(USERS_FILE=str(tmp_path / "users.json")) as running:
        yield running


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Served]:
    """The functions with a cookie that only our own answers can set."""
    with served(
        ENVIRONMENT="production",
        USE_DATABASE="false",
        USERS_FILE=str(tmp_path / "users.json"),
        BCRYPT_ROUNDS="10",
    ) as running:
        yield running


def _token(app: Served, name: str) -> str:
    body = json.dumps({"email": f"{name}@example.com", "password": PASSWORD}).encode()
    answer = app.send("POST", "/api/signup", [JSON], body)
    assert answer.status_code == 201
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


def _who(app: Served, *cookies: str) -> str | None:
    answer = app.send("GET", "/api/user", [("Cookie", "; ".join(cookies))])
    assert answer.status_code in (200, 401)
    return str(answer.json["email"]) if answer.json and answer.status_code == 200 else None


def test_two_session_cookies_that_differ_are_nobodys_session_in_either_order(
    development: Served,
) -> None:
    ada, bob = _token(development, "ada"), _token(development, "bob")
    assert _who(development, f"session={ada}") == "ada@example.com"
    for pair in itertools.permutations([ada, bob, "invalid", ""], 2):
        assert _who(development, *(f"session={value}" for value in pair)) is None
        assert _who(development, f"session={pair[0]}", "theme=dark", f"session={pair[1]}") is None


def test_one_session_cookie_sent_twice_is_that_session(development: Served) -> None:
    ada = _token(development, "ada")
    assert _who(development, f"session={ada}", f"session={ada}") == "ada@example.com"


def test_with_two_session_cookies_nothing_is_changed_for_either_user(development: Served) -> None:
    pair = [_token(development, name) for name in ("ada", "bob")]
    before = development.settings.store.users_file.read_bytes()
    changes = {"everywhere": True, "newPassword": "quite another horse"}
    body = json.dumps(changes | {"password": PASSWORD, "currentPassword": PASSWORD}).encode()
    for first, second in (pair, pair[::-1]):
        cookie = ("Cookie", f"session={first}; session={second}")
        for method, path in [
            ("GET", "/api/account"),
            ("DELETE", "/api/account"),
            ("POST", "/api/password"),
            ("POST", "/api/logout"),
        ]:
            answer = development.send(method, path, [JSON, cookie], body)
            assert answer.status_code == 401
    assert development.settings.store.users_file.read_bytes() == before


def test_logging_out_with_two_session_cookies_clears_ours(development: Served) -> None:
    ada, bob = (_token(development, name) for name in ("ada", "bob"))
    answer = development.send("POST", "/api/logout", [("Cookie", f"session={ada}; session={bob}")])
    assert answer.status_code == 200
    assert answer.headers["Set-Cookie"].startswith("session=;")


def test_logging_in_answers_for_the_password_whatever_the_cookies_say(development: Served) -> None:
    ada = _token(development, "ada")
    _token(development, "bob")
    body = json.dumps({"email": "bob@example.com", "password": PASSWORD}).encode()
    for cookie in (f"session={ada}", f"session={ada}; session=invalid", "session="):
        answer = _login(development, body, cookie)
        assert answer.json is not None
        assert answer.json["email"] == "bob@example.com"
        token = answer.headers["Set-Cookie"].split(";")[0]
        assert _who(development, token) == "bob@example.com"


def _login(app: Served, body: bytes, cookie: str) -> TestResponse:
    return app.send("POST", "/api/login", [JSON, ("Cookie", cookie)], body)


@pytest.mark.parametrize(
    "cookie",
    [
        "Session={}",
        "SESSION={}",
        "__Host-session={}",
        "session2={}",
        "sess%69on={}",
        "session[]={}",
        "$session={}",
        "=session={}",
        "session%3D{}",
        "other=session={}",
    ],
)
def test_only_the_cookie_of_the_name_is_the_session_cookie(
    development: Served, cookie: str
) -> None:
    ada, bob = (_token(development, name) for name in ("ada", "bob"))
    assert _who(development, cookie.format(bob)) is None
    assert _who(development, f"session={ada}", cookie.format(bob)) in (None, "ada@example.com")
    assert _who(development, cookie.format(bob), f"session={ada}") in (None, "ada@example.com")


@pytest.mark.parametrize(
    "cookie",
    ["session={}", "__Secure-session={}", "__host-session={}", "=__Host-session={}"],
)
def test_in_production_only_the_host_bound_cookie_counts(production: Served, cookie: str) -> None:
    ada, bob = (_token(production, name) for name in ("ada", "bob"))
    assert _who(production, cookie.format(bob)) is None
    for cookies in itertools.permutations([f"__Host-session={ada}", cookie.format(bob)]):
        assert _who(production, *cookies) == "ada@example.com"


def test_two_cookies_of_the_old_server_are_nobodys_session() -> None:
    settings = Settings.from_env({"SESSION_SECRET": SECRET})
    first, second = (sign(sid) for sid in ("one", "two"))
    assert _express_sid(settings, first) == _express_sid(settings, f"{first}; {first}") == "one"
    for cookies in (f"{first}; {second}", f"{second}; {first}", f"{first}; connect.sid=x"):
        assert _express_sid(settings, cookies) is None


def _express_sid(settings: Settings, cookies: str) -> str | None:
    environ = EnvironBuilder(headers=[("Cookie", cookies)]).get_environ()
    return Call(Application(settings), Request(environ), "test", time.time()).express_sid
