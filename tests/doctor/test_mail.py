"""The mail server, as the doctor asks it: real ones, over TLS."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.support.doctor import look, told
from tests.support.mail_servers import PASSWORD, SETTINGS, Certificates, MailServer, url_of
from tests.support.postgres import free_port


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MailServer:
    """One that this process trusts."""
    certificates = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", certificates.roots)
    return MailServer(certificates.context())


def test_a_server_that_lets_us_in_is_told_and_gets_no_mail(server: MailServer) -> None:
    with server.running():
        (found,) = look("mail", **SETTINGS, MAIL_URL=url_of(server.port))
    assert found.verdict == "ok"
    assert found.sentence == "The mail server localhost accepts our login."
    assert server.logins == ["PLAIN"]
    assert server.received == []


def test_a_server_that_does_not_is_a_problem_without_its_password(server: MailServer) -> None:
    with server.running():
        url = url_of(server.port).replace("ada", "eve")
        (problem,) = told(look("mail", **SETTINGS, MAIL_URL=url), "problem")
    assert "rejects the login: check user and password in MAIL_URL" in problem
    assert "When mail does not leave" in problem
    assert PASSWORD not in problem
    assert "eve" not in problem
    (problem,) = told(look("mail", **SETTINGS, MAIL_URL=url_of(free_port())), "problem")
    assert "refuses connections" in problem


def test_a_hook_that_is_away_is_a_problem(server: MailServer) -> None:
    secret = f"whsec_{base64.b64encode(b'x' * 32).decode()}"
    url = f"https://localhost:{free_port()}/?key=canary"
    (problem,) = told(look("mail", **SETTINGS, MAIL_URL=url, MAIL_HOOK_SECRET=secret), "problem")
    assert "The mail hook localhost refuses connections" in problem
    assert "canary" not in problem


def test_without_mail_nothing_is_said_unless_it_looks_meant() -> None:
    assert look("mail", ENVIRONMENT="test") == []
    (note,) = told(look("mail", ENVIRONMENT="test", MAIL_FROM="a@example.com"), "note")
    assert "MAIL_FROM is set, but no mail is sent. Set MAIL_URL" in note


def test_developments_folder_is_told_and_not_made(tmp_path: Path) -> None:
    (found,) = look("mail", USERS_FILE=str(tmp_path / "users.json"))
    assert found.sentence == f"Mails are files in {tmp_path / 'mail'}."
    assert os.listdir(tmp_path) == []
    (tmp_path / "mail").mkdir()
    (found,) = look("mail", USERS_FILE=str(tmp_path / "users.json"))
    assert found.verdict == "ok"
    assert os.listdir(tmp_path / "mail") == []
