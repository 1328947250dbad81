"""Requests while the mail server is away: none waits for it, or so much as connects to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.connections import connections
from tests.support.in_process import Served, served
from tests.support.mail_servers import Certificates, Conversation, RudeServer, url_of
from tests.support.mails import token_for
from tests.support.postgres import free_port
from tests.support.waiting import until

ADA, PASSWORD = "ada@example.com", "correct horse battery"


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    found = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", found.roots)
    return found


def _ask_for_everything(app: Served) -> Iterator[tuple[str, int, int]]:
    """Send each request that has a mail sent; give its path, its status and the one expected."""
    ada, new = {"email": ADA, "password": PASSWORD}, "a wholly new password"
    signed_up = app.post("/api/signup", ada)
    yield "signup", signed_up.status_code, 201
    user, cookie = signed_up.json, ("Cookie", signed_up.headers["Set-Cookie"].partition(";")[0])
    assert user
    for path, body, status in (
        ("/api/email/verification", {}, 202),
        ("/api/password/forgot", {"email": ADA}, 202),
        ("/api/password/forgot", {"email": "nobody@example.com"}, 202),
        ("/api/login/mail", {"email": ADA}, 202),
        ("/api/email/verify", {"token": token_for(user, "verification")}, 200),
        ("/api/email", {"newEmail": "new@example.com", "password": PASSWORD}, 202),
        ("/api/password", {"currentPassword": PASSWORD, "newPassword": new}, 200),
    ):
        answer = app.post(path, body, cookie)
        yield path, answer.status_code, status
        if "Set-Cookie" in answer.headers:
            cookie = ("Cookie", answer.headers["Set-Cookie"].partition(";")[0])
    deleted = app.post("/api/account", {"password": new}, cookie, method="DELETE")
    yield "deletion", deleted.status_code, 204
    reset = {"token": token_for(user, "password_reset"), "newPassword": new}
    yield "reset", app.post("/api/password/reset", reset).status_code, 400


@pytest.mark.parametrize("fault", ["hangs", "refuses"])
@pytest.mark.parametrize("mode", ["after", "self"])
def test_no_request_connects_to_the_mail_server_or_waits_for_who_does(
    store_settings: dict[str, str], certificates: Certificates, mode: str, fault: str
) -> None:
    """Each is answered while the mail server holds a delivery."""
    goes_on, mail_port = threading.Event(), free_port()

    def hold(conversation: Conversation) -> None:
        goes_on.wait(60)
        raise EOFError

    with ExitStack() as stack:
        itself = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        own_port = itself.getsockname()[1]
        if fault == "hangs":
            server = RudeServer(certificates.context(), {"greeting": hold}, mail_port)
            stack.enter_context(server.running())
        app = stack.enter_context(
            served(
                **store_settings,
                MAIL_URL=url_of(mail_port, "smtps"),
                MAIL_FROM="no-reply@example.com",
                MAIL_DELIVERY=mode,
                PUBLIC_URL=f"http://127.0.0.1:{own_port}",
                SIGN_IN_BY_MAIL="true",
            )
        )
        stack.callback(goes_on.set)
        heard = stack.enter_context(connections())
        for path, status, expected in _ask_for_everything(app):
            assert status == expected, path
            if path == "signup":  # From now on somebody is delivering.
                app.application.deliverer.wake()
                until(lambda: any(connect.port == mail_port for connect in heard))
            assert not goes_on.is_set()
        ours = {c.port for c in heard if c.thread is threading.current_thread()}
        assert not ours & {mail_port, own_port}
        assert {c.thread.name for c in heard if c.port == mail_port} == {"mail"}
        wakes = {c.thread.name for c in heard if c.port == own_port}
        assert wakes == ({"wake"} if mode == "self" else set())
