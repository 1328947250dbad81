"""A forgotten password: asked for, mailed, and set anew, over HTTP."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.mail.wake import VALID_SECONDS
from shared.model.users import User
from tests.support.in_process import Served, served
from tests.support.mails import delivered, link, text, token
from tests.support.stores import CLIENT

ADDRESS, OLD, NEW = "ada@example.com", "correct horse battery", "a wholly new password"
ADMIN_TOKEN = "QWRtaW4gb2YgdGhlIG1haWxzLCBhbmQgb2Ygbm9ib2R5IGVsc2U"
DELIVERY = "/api/mail/delivery"
ALLOWING = {"ENVIRONMENT": "development", "ALLOWED_ORIGINS": "https://app.example.com"}
ORIGINS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("Sec-Fetch-Site", "cross-site"),),
    (("Sec-Fetch-Site", "same-origin"),),
    (("Origin", "https://evil.example"),),
    (("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "POST")),
)


@pytest.fixture
def app(store_settings: dict[str, str]) -> Iterator[Served]:
    with served(ENVIRONMENT="development", BCRYPT_ROUNDS="4", **store_settings) as running:
        yield running


def _sign_up(app: Served) -> str:
    person = {"email": ADDRESS, "password": OLD}
    response = app.post("/api/signup", person)
    assert response.status_code == 201
    return str(response.headers["Set-Cookie"].partition(";")[0])


def _forget(app: Served, address: str = ADDRESS) -> Any:
    return app.post("/api/password/forgot", {"email": address})


def _reset(app: Served, given: str, new: str = NEW) -> Any:
    return app.post("/api/password/reset", {"token": given, "newPassword": new})


def _log_in(app: Served, password: str) -> int:
    return int(app.post("/api/login", {"email": ADDRESS, "password": password}).status_code)


def test_who_has_forgotten_the_password_sets_a_new_one_by_a_link(app: Served) -> None:
    cookie = _sign_up(app)
    assert _forget(app).status_code == 202
    page, given = link(delivered(app)[-1])
    assert page == "reset"
    response = _reset(app, given)
    assert response.status_code == 200, response.text
    assert "Set-Cookie" not in response.headers
    assert [_log_in(app, OLD), _log_in(app, NEW)] == [401, 200]
    account = app.send("GET", "/api/account", [("Cookie", cookie)])
    assert account.status_code == 401  # All sessions have ended.
    assert "password" in delivered(app)[-1]["Subject"].lower()
    assert "#token=" not in text(delivered(app)[-1])


def test_a_link_works_once(app: Served) -> None:
    _sign_up(app)
    _forget(app)
    given = token(app, ADDRESS)
    assert _reset(app, given).status_code == 200
    again = _reset(app, given, "and another password")
    assert (again.status_code, again.json["code"]) == (400, "invalid_mail_token")
    assert _log_in(app, NEW) == 200


def test_an_address_that_nobody_has_gets_the_same_answer_and_no_mail(app: Served) -> None:
    _sign_up(app)
    known, unknown = _forget(app), _forget(app, "nobody@example.com")
    assert (known.status_code, known.data) == (unknown.status_code, unknown.data)
    names = [[name for name, _ in answer.headers] for answer in (known, unknown)]
    assert names[0] == names[1]
    assert {mail["To"] for mail in delivered(app)} == {ADDRESS}


@pytest.mark.parametrize("given", ["", "x", "a.b.c", "session"])
def test_what_is_no_token_of_a_mail_is_refused(app: Served, given: str) -> None:
    if given == "session":
        given = _sign_up(app).partition("=")[2]
    response = _reset(app, given)
    assert response.status_code == 400


def test_a_token_of_a_mail_is_no_session(app: Served) -> None:
    _sign_up(app)
    _forget(app)
    given = token(app, ADDRESS)
    cookie = f"{app.settings.web.cookie_name}={given}"
    assert app.send("GET", "/api/user", [("Cookie", cookie)]).status_code == 401


def test_a_new_password_is_held_to_the_rules(app: Served) -> None:
    _sign_up(app)
    _forget(app)
    given = token(app, ADDRESS)
    response = _reset(app, given, "password")
    assert (response.status_code, response.json["field"]) == (400, "newPassword")
    assert _reset(app, given).status_code == 200


def test_a_new_password_is_not_the_name(app: Served) -> None:
    body = {"email": ADDRESS, "password": OLD, "name": "Wilhelmina Featherstone"}
    assert app.post("/api/signup", body).status_code == 201
    _forget(app)
    response = _reset(app, token(app, ADDRESS), "wilhelmina featherstone")
    assert (response.status_code, response.json["field"]) == (400, "newPassword")


def test_nobody_but_the_service_itself_has_mails_delivered(app: Served) -> None:
    now = int(time.time())
    ours = str(app.application.wake.authorization(now))
    assert app.send("POST", DELIVERY, [("Authorization", ours)]).status_code == 204
    old = str(app.application.wake.authorization(now - 2 * VALID_SECONDS))
    for value in ("", "Bearer x", "Bearer 1.2", f"Bearer {now}.{'0' * 64}", old):
        headers = [("Authorization", value)] if value else []
        assert app.send("POST", DELIVERY, headers).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "FOO"])
@pytest.mark.parametrize("origin", ORIGINS, ids=str)
def test_to_anybody_else_there_is_no_such_path(
    tmp_path: Path, method: str, origin: tuple[tuple[str, str], ...]
) -> None:
    with served(**ALLOWING, USERS_FILE=f"{tmp_path}/users.json") as app:
        found = [_shown(app, method, path, origin) for path in (DELIVERY, "/api/nothing")]
        assert found[0] == found[1]
        assert found[0][0] == 404


def test_where_no_mail_is_sent_there_is_no_delivery(tmp_path: Path) -> None:
    with served(USERS_FILE=f"{tmp_path}/users.json") as app:
        ours = ("Authorization", app.application.wake.authorization(time.time()))
        for method in ("GET", "POST"):
            assert _shown(app, method, DELIVERY, [ours])[0] == 404


def test_an_administrators_scheduler_has_mails_delivered(store_settings: dict[str, str]) -> None:
    settings = store_settings | {"ENVIRONMENT": "development", "MAIL_DELIVERY": "self"}
    with served(ADMIN_TOKEN=ADMIN_TOKEN, PUBLIC_URL="http://127.0.0.1:9", **settings) as app:
        app.store.create_user(User(str(uuid.uuid4()), ADDRESS, None, "local"), "hash")
        app.store.mail.ask_for_mail("password_reset", ADDRESS, locale=None, client=CLIENT)
        for given, status in ((ADMIN_TOKEN[::-1], 404), (ADMIN_TOKEN, 204)):
            assert app.store.mail.status().waiting == 1
            headers = [("Authorization", f"Bearer {given}")]
            assert app.send("POST", DELIVERY, headers).status_code == status
        assert app.store.mail.status().waiting == 0
        # A browser sends it with a form of any page.
        basic = base64.b64encode(f"me:{ADMIN_TOKEN}".encode()).decode()
        refused = app.send("POST", DELIVERY, [("Authorization", f"Basic {basic}")])
        assert refused.status_code == 404


def _shown(app: Served, method: str, path: str, headers: Iterable[tuple[str, str]]) -> Any:
    """Give all of an answer but what identifies the request."""
    response = app.send(method, path, headers, b"not JSON" if method == "POST" else b"")
    request_id = response.headers.pop("X-Request-Id")
    return response.status_code, [*response.headers], response.text.replace(request_id, "")
