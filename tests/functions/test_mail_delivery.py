"""The service's request to itself, over real sockets: from a forgotten password to the mail."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from shared.mail import wake
from shared.mail.wake import PATH, PAUSE, VALID_SECONDS, Wake
from tests.conftest import STORES
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.in_process import served
from tests.support.mail_servers import Certificates, MailServer, url_of
from tests.support.postgres import Server, free_port
from tests.support.waiting import until

ADA, PASSWORD = "ada@example.com", "correct horse battery"


class Service:
    """An emulator that calls itself, and the mail server that it delivers to."""

    def __init__(self, emulator: Emulator, server: MailServer) -> None:
        self.emulator = emulator
        self.server = server

    def deliveries(self) -> list[dict[str, Any]]:
        """Give the log lines of requests to have mails delivered that were ours."""
        lines = [line for line in self.emulator.log() if line.get("function") == "mail_delivery"]
        return [line for line in lines if line["status"] == 204]

    def recipients(self) -> list[str]:
        return [envelope.rcpt_tos[0] for envelope in self.server.received]

    def have_delivered(self) -> None:
        """Send the request to itself, and wait for its answer."""
        with self.emulator.client() as client:
            headers = {"Authorization": Wake((SECRET,), "").authorization(time.time())}
            assert client.post(PATH, headers=headers).status_code == 204


@pytest.fixture(params=STORES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    file = {"USERS_FILE": str(tmp_path / "users.json")}
    if request.param == "json":
        return file
    server: Server = request.getfixturevalue("postgres")
    return file | {"DATABASE_URL": server.url(request.getfixturevalue("database"))}


@pytest.fixture
def service(settings: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    """One whose first user is there, with the first clean-up and its mail behind it."""
    certificates, port = Certificates(tmp_path), str(free_port())
    with MailServer(certificates.context()).running() as server:
        mail = {
            "SSL_CERT_FILE": certificates.roots,
            "MAIL_URL": url_of(server.port),
            "MAIL_FROM": "no-reply@example.com",
            "MAIL_DELIVERY": "self",
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        with running_emulator(port=port, **settings, **mail) as emulator:
            found = Service(emulator, server)
            with emulator.client() as client:
                user = {"email": ADA, "password": PASSWORD}
                assert client.post("/api/signup", json=user).status_code == 201
            until(lambda: found.recipients() == [ADA])
            until(lambda: len(found.deliveries()) >= 1)
            server.received.clear()
            yield found


def _forget(client: httpx.Client, address: str) -> httpx.Response:
    return client.post("/api/password/forgot", json={"email": address})


def test_who_forgot_a_password_gets_the_mail_by_a_request_of_the_service_to_itself(
    service: Service,
) -> None:
    time.sleep(PAUSE)  # Since the request of the sign-up.
    with service.emulator.client() as client:
        assert _forget(client, ADA).status_code == 202
    until(lambda: service.recipients() == [ADA])
    until(lambda: len(service.deliveries()) >= 2)
    time.sleep(PAUSE)  # Since the request before.
    with service.emulator.client() as client:
        assert _forget(client, "nobody@example.com").status_code == 202
    until(lambda: len(service.deliveries()) >= 3)
    assert service.recipients() == [ADA]


@pytest.mark.parametrize(
    "settings", ["json", pytest.param("postgres", marks=pytest.mark.long)], indirect=True
)
def test_many_who_ask_at_once_cause_a_request_a_second_and_each_gets_the_mail(
    service: Service,
) -> None:
    addresses = [f"user{number}@example.com" for number in range(4)]
    before, began = len(service.deliveries()), time.monotonic()
    with service.emulator.client() as client:
        for address in addresses:
            user = {"email": address, "password": PASSWORD}
            assert client.post("/api/signup", json=user).status_code == 201
        until(lambda: sorted(service.recipients()) == addresses)
        service.server.received.clear()
        for address in addresses:
            assert _forget(client, address).status_code == 202
        seconds = time.monotonic() - began
    until(lambda: sorted(service.recipients()) == addresses)
    service.have_delivered()  # It takes as long as those before it.
    assert len(service.deliveries()) - before - 1 <= seconds / PAUSE + 1


@pytest.mark.parametrize(
    "settings", ["json", pytest.param("postgres", marks=pytest.mark.long)], indirect=True
)
def test_a_delivery_causes_no_further_one(service: Service) -> None:
    before = len(service.deliveries())
    for _ in range(2):  # What the first had caused would have ended before the second.
        service.have_delivered()
    assert len(service.deliveries()) == before + 2


def test_nobody_else_is_told_that_there_is_such_a_path(service: Service) -> None:
    now = time.time()
    old = Wake((SECRET,), "").authorization(now - VALID_SECONDS - 5)
    wrong = Wake(("x" * 32,), "").authorization(now)

    def shown(answer: httpx.Response) -> tuple[object, ...]:
        members = answer.json()
        assert members.pop("request_id")
        headers = {n: v for n, v in answer.headers.items() if n not in ("date", "x-request-id")}
        return answer.status_code, members, headers.keys()

    with service.emulator.client() as client:
        nowhere = shown(client.post("/api/mail/deliveries"))
        assert nowhere[0] == 404
        for value in (old, wrong, "Bearer x", "Basic eDp5", ""):
            headers = {"Authorization": value} if value else {}
            assert shown(client.post(PATH, headers=headers)) == nowhere


def test_a_target_that_takes_the_request_and_never_answers_is_not_waited_for(
    settings: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        mail = {
            "MAIL_URL": "smtps://127.0.0.1:9",
            "MAIL_FROM": "no-reply@example.com",
            "MAIL_DELIVERY": "self",
            "PUBLIC_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        with running_emulator(**settings, **mail) as emulator, emulator.client() as client:
            assert _forget(client, ADA).status_code == 202
            connection, _ = silent.accept()
            with connection:
                assert _forget(client, ADA).status_code == 202
                connection.settimeout(30)
                assert connection.recv(65536).startswith(f"POST {PATH} HTTP/1.1\r\n".encode())


def test_it_is_written_whoever_is_asked_for(
    store_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known or unknown, or with too many mails already: one request each time."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(wake, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with socket.create_server(("127.0.0.1", 0)) as itself:
        itself.settimeout(30)
        with served(
            **store_settings,
            MAIL_URL="smtps://127.0.0.1:9",
            MAIL_FROM="no-reply@example.com",
            MAIL_DELIVERY="self",
            PUBLIC_URL=f"http://127.0.0.1:{itself.getsockname()[1]}",
            SIGN_IN_BY_MAIL="true",
        ) as app:

            def asked(send: Callable[[], Any]) -> None:
                clock.now += PAUSE
                assert send().status_code in (201, 202)
                itself.accept()[0].close()
                itself.setblocking(False)
                with pytest.raises(BlockingIOError):
                    itself.accept()
                itself.settimeout(30)

            asked(lambda: app.post("/api/signup", {"email": ADA, "password": PASSWORD}))
            for path in ("/api/password/forgot", "/api/login/mail", "/api/email/verification"):
                for address in (ADA, "nobody@example.com", ADA, ADA, ADA):
                    asked(lambda p=path, a=address: app.post(p, {"email": a}))  # type: ignore[misc]
