"""Cookies that somebody else put beside ours: nobody becomes another user by them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from shared.application import Application
from shared.settings import Settings
from shared.web.call import Call
from shared.web.cookies import MAX_VALUES
from tests.support.emulator import SECRET, Emulator
from tests.support.express import sign
from tests.support.in_process import Served, served

PASSWORD = "correct horse battery staple"


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
    answer = app.post("/api/signup", {"email": f"{name}@example.com", "password": PASSWORD})
    assert answer.status_code == 201
    return answer.headers["Set-Cookie"].split(";")[0].partition("=")[2]


def _who(app: Served, *cookies: str) -> str | None:
    answer = app.send("GET", "/api/user", [("Cookie", "; ".join(cookies))])
    assert answer.status_code in (200, 401)
    return str(answer.json["email"]) if answer.json and answer.status_code == 200 else None


def test_cookies_of_two_users_are_nobodys_session_in_either_order(development: Served) -> None:
    ada, bob = _token(development, "ada"), _token(development, "bob")
    assert _who(development, f"session={ada}") == "ada@example.com"
    for pair in itertools.permutations([ada, bob]):
        assert _who(development, *(f"session={value}" for value in pair)) is None
        assert _who(development, f"session={pair[0]}", "theme=dark", f"session={pair[1]}") is None


@pytest.mark.parametrize("other", ["invalid", "", "a.b.c", '"', "%00", "x" * 5000])
def test_a_session_is_found_beside_a_cookie_of_its_name_that_is_none(
    development: Served, other: str
) -> None:
    ada = _token(development, "ada")
    for pair in itertools.permutations([ada, other]):
        assert _who(development, *(f"session={value}" for value in pair)) == "ada@example.com"


def test_of_two_sessions_of_one_user_the_latest_counts(development: Served) -> None:
    earlier = _token(development, "ada")
    user = development.application.tokens.verify(earlier).user
    later = development.application.tokens.issue(user, time.time() + 5).text
    for pair in itertools.permutations([earlier, later]):
        cookies = ("Cookie", "; ".join(f"session={value}" for value in pair))
        environ = EnvironBuilder(headers=[cookies]).get_environ()
        call = Call(development.application, Request(environ), "test", time.time())
        assert call.session_token == later


def test_one_session_cookie_sent_twice_is_that_session(development: Served) -> None:
    ada = _token(development, "ada")
    assert _who(development, f"session={ada}", f"session={ada}") == "ada@example.com"


def test_with_two_session_cookies_nothing_is_changed_for_either_user(development: Served) -> None:
    pair = [_token(development, name) for name in ("ada", "bob")]
    before = development.settings.store.users_file.read_bytes()
    changes = {"everywhere": True, "newPassword": "quite another horse"}
    body = changes | {"password": PASSWORD, "currentPassword": PASSWORD}
    for first, second in (pair, pair[::-1]):
        cookie = ("Cookie", f"session={first}; session={second}")
        for method, path in [
            ("GET", "/api/account"),
            ("DELETE", "/api/account"),
            ("POST", "/api/password"),
            ("POST", "/api/logout"),
        ]:
            answer = development.post(path, body, cookie, method=method)
            assert answer.status_code == 401
    assert development.settings.store.users_file.read_bytes() == before


def test_logging_out_ends_the_session_of_each_cookie(development: Served) -> None:
    tokens = [_token(development, name) for name in ("ada", "bob")]
    cookie = "; ".join(f"session={token}" for token in tokens)
    answer = development.send("POST", "/api/logout", [("Cookie", cookie)])
    assert (answer.status_code, answer.json) == (200, {"message": "Logged out successfully"})
    assert answer.headers["Set-Cookie"].startswith("session=;")
    for token in tokens:
        assert _account(development, token) == 401


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_logging_out_never_says_done_of_a_cookie_that_it_could_not_read(
    development: Served, everywhere: bool, first: bool
) -> None:
    token = _token(development, "ada")
    pair = ["session=invalid", f"session={token}"]
    cookie = ("Cookie", "; ".join(pair if first else pair[::-1]))
    answer = development.post("/api/logout", {"everywhere": everywhere}, cookie)
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["ended"] is False
    assert "it could not be read" in answer.json["message"]
    assert answer.headers["Set-Cookie"].startswith("session=;")
    assert _account(development, token) == 401


def test_more_cookies_than_a_browser_keeps_are_not_all_read_and_not_said_to_be(
    development: Served,
) -> None:
    token = _token(development, "ada")
    cookie = "; ".join([f"session={token}", *(f"session=x{n}" for n in range(MAX_VALUES))])
    assert _who(development, cookie) == "ada@example.com"
    copies = "; ".join(
        f"session={development.application.tokens.issue(user, time.time()).text}"
        for user in [development.application.tokens.verify(token).user] * (MAX_VALUES + 1)
    )
    answer = development.send("POST", "/api/logout", [("Cookie", copies)])
    assert answer.json is not None
    assert answer.json["ended"] is False


def _account(app: Served, token: str) -> int:
    return app.send("GET", "/api/account", [("Cookie", f"session={token}")]).status_code


def test_logging_in_answers_for_the_password_whatever_the_cookies_say(development: Served) -> None:
    ada = _token(development, "ada")
    _token(development, "bob")
    body = {"email": "bob@example.com", "password": PASSWORD}
    for cookie in (f"session={ada}", f"session={ada}; session=invalid", "session="):
        answer = development.post("/api/login", body, ("Cookie", cookie))
        assert answer.json is not None
        assert answer.json["email"] == "bob@example.com"
        token = answer.headers["Set-Cookie"].split(";")[0]
        assert _who(development, token) == "bob@example.com"


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


def test_cookies_of_two_sessions_of_the_old_server_are_nobodys_session() -> None:
    settings = Settings.from_env({"SESSION_SECRET": SECRET})
    first, second = (sign(sid) for sid in ("one", "two"))
    assert _express_sid(settings, first) == _express_sid(settings, f"{first}; {first}") == "one"
    for cookies in (f"{first}; connect.sid=x", f"connect.sid=x; {first}"):
        assert _express_sid(settings, cookies) == "one"
    for cookies in (f"{first}; {second}", f"{second}; {first}", "connect.sid=x"):
        assert _express_sid(settings, cookies) is None


def _express_sid(settings: Settings, cookies: str) -> str | None:
    environ = EnvironBuilder(headers=[("Cookie", cookies)]).get_environ()
    return Call(Application(settings), Request(environ), "test", time.time()).express_sid


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_several_lines_of_cookies_are_one_list(
    emulator: Emulator, address: str, order: tuple[int, ...]
) -> None:
    with emulator.client() as client:
        user = {"email": address, "password": PASSWORD}
        client.post("/api/signup", json=user).raise_for_status()
        lines = ["theme=dark", f"session={client.cookies['session']}", "a=1; b=2, c"]
        client.cookies.clear()
        headers = [("Cookie", lines[number]) for number in order]
        assert client.get("/api/user", headers=headers).json()["email"] == address
        forged = [("Cookie", "theme=x,session=y"), *headers]
        assert client.get("/api/user", headers=forged).json()["email"] == address
        assert client.post("/api/logout", headers=headers).json() == {
            "message": "Logged out successfully"
        }
        assert client.get("/api/account", headers=headers).status_code == 401
