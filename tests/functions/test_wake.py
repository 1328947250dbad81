"""With MAIL_DELIVERY=self, whatever may have written a mail calls the service before its answer."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from shared.formats.timestamps import now_iso
from tests.support.google import Providers
from tests.support.in_process import Served, served
from tests.support.mails import token_for

ADA, PASSWORD, NEW = "ada@example.com", "correct horse battery", "a wholly new password"
ADMIN_TOKEN = "V2hvIHdha2VzIHRoZSBzZXJ2aWNlLCBhbmQgbm90aGluZyBlbHNl"
HOME, ELSEWHERE = "198.51.100.1", "192.0.2.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The service as others see it: who has called it by now waits to be accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def app(
    store_settings: dict[str, str],
    listener: socket.socket,
    providers: Providers,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Served]:
    providers.serve_this_process(monkeypatch)
    variables = {
        "ENVIRONMENT": "development",
        "BCRYPT_ROUNDS": "4",
        "SIGN_IN_BY_MAIL": "true",
        "TRUSTED_PROXIES": "1",
        "MAIL_DELIVERY": "self",
        "PUBLIC_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "ADMIN_TOKEN": ADMIN_TOKEN,
    }
    google = {"GOOGLE_CLIENT_ID": providers.settings["GOOGLE_CLIENT_ID"]}
    with served(**variables | google | store_settings) as running:
        yield running


def _calls(listener: socket.socket) -> list[str]:
    """Give the first line of each request that has arrived."""
    found: list[str] = []
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return found
        with connection:
            connection.settimeout(5)
            found.append(connection.recv(4096).decode().partition("\r\n")[0])


WOKEN, LEFT_ALONE = ["POST /api/mail/delivery HTTP/1.1"], list[str]()


def _send(
    app: Served,
    path: str,
    body: dict[str, Any],
    *,
    client: str = HOME,
    cookie: str = "",
    **how: str,
) -> Any:
    app.application.wake._last = float("-inf")  # Not twice a second.
    headers = [("X-Forwarded-For", client), *([("Cookie", cookie)] if cookie else [])]
    return app.post(path, body, *headers, **how)


def test_what_may_have_written_a_mail_wakes_the_service_and_nothing_else_does(
    app: Served, listener: socket.socket, providers: Providers
) -> None:
    ada = {"email": ADA, "password": PASSWORD}
    signed_up = _send(app, "/api/signup", ada)
    assert _calls(listener) == WOKEN
    cookie = signed_up.headers["Set-Cookie"].partition(";")[0]

    def token(kind: Any) -> dict[str, str]:
        return {"token": token_for(signed_up.json, kind)}

    def google() -> dict[str, str]:
        return {"idToken": providers.google_token(email="eve@gmail.com", sub="eve")}

    change = {"newEmail": "new@example.com", "password": PASSWORD}
    for path, body, client, status, expected in (
        ("/api/login", ada, HOME, 200, LEFT_ALONE),
        ("/api/login", ada | {"password": "wrong"}, ELSEWHERE, 401, LEFT_ALONE),
        ("/api/password/forgot", {"email": ADA}, HOME, 202, WOKEN),
        ("/api/password/forgot", {"email": "nobody@example.com"}, HOME, 202, WOKEN),
        ("/api/login/mail", {"email": ADA}, HOME, 202, WOKEN),
        ("/api/login/mail", {"email": "nobody@example.com"}, HOME, 202, WOKEN),
        ("/api/email/verification", {}, HOME, 202, WOKEN),
        ("/api/email", change, HOME, 202, WOKEN),
        ("/api/email/verify", token("verification"), HOME, 200, WOKEN),
        ("/api/login", ada, ELSEWHERE, 200, WOKEN),
        ("/api/login", ada, ELSEWHERE, 200, LEFT_ALONE),
        ("/api/login/mail/verify", token("login_link"), HOME, 200, WOKEN),
        ("/api/auth/google", google(), HOME, 201, LEFT_ALONE),
        ("/api/auth/google", google(), HOME, 200, LEFT_ALONE),
        ("/api/auth/google", google(), ELSEWHERE, 200, WOKEN),
        ("/api/auth/google", google(), ELSEWHERE, 200, LEFT_ALONE),
        ("/api/user", {}, HOME, 405, LEFT_ALONE),
    ):
        signs_in = "login" in path or "google" in path
        response = _send(app, path, body, client=client, cookie="" if signs_in else cookie)
        assert (response.status_code, _calls(listener)) == (status, expected), (path, response.text)
    response = _send(
        app, "/api/password", {"currentPassword": PASSWORD, "newPassword": NEW}, cookie=cookie
    )
    assert (response.status_code, _calls(listener)) == (200, WOKEN)
    cookie = response.headers["Set-Cookie"].partition(";")[0]
    response = _send(app, "/api/account", {"password": NEW}, cookie=cookie, method="DELETE")
    assert (response.status_code, _calls(listener)) == (204, WOKEN)


def test_who_signs_up_with_google_gets_mails_in_the_browsers_language(
    app: Served, providers: Providers
) -> None:
    body = {"idToken": providers.google_token(email="eve@gmail.com", sub="eve")}
    for client in (HOME, ELSEWHERE):
        headers = [("X-Forwarded-For", client), ("Accept-Language", "de-AT,de")]
        assert app.post("/api/auth/google", body, *headers).status_code < 300
    (mail,) = app.store.mail.lease(10)
    assert (mail.kind, mail.locale) == ("new_sign_in", "de")


def test_so_does_a_reset(app: Served, listener: socket.socket) -> None:
    user = _send(app, "/api/signup", {"email": ADA, "password": PASSWORD}).json
    assert _calls(listener) == WOKEN
    reset = {"token": token_for(user, "password_reset"), "newPassword": NEW}
    assert _send(app, "/api/password/reset", reset).status_code == 200
    assert _calls(listener) == WOKEN


def test_so_does_a_reconciliation(app: Served, listener: socket.socket) -> None:
    if not app.settings.store.use_database:
        return
    assert app.send("GET", "/api/health").status_code == 200
    pending = {
        "id": str(uuid.uuid4()),
        "email": ADA,
        "password": "$2b$04$" + "a" * 53,
        "unverifiedSince": now_iso(),
        "pending": {"operation": str(uuid.uuid4())},
    }
    app.settings.store.users_file.write_text(json.dumps([pending]))
    bearer = ("Authorization", f"Bearer {ADMIN_TOKEN}")
    answer = app.post("/api/migrate", {"action": "reconcile"}, bearer)
    assert '"created": 1' in answer.text
    assert _calls(listener) == WOKEN
