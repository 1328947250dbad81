"""Mail over a real mail server: TLS, logging in, and what arrives."""

from __future__ import annotations

import email
import email.policy
import socket
import time
from email.message import EmailMessage
from typing import Any

import pytest

from shared.mail.message import Message
from shared.mail.transport import Refused
from tests.support.mail_servers import (
    LINK,
    MESSAGE,
    SECONDS,
    Certificates,
    MailServer,
    failure,
    transport,
    url_of,
)


def _send(url: str, message: Message = MESSAGE) -> None:
    transport(url).send(message, time.monotonic() + SECONDS)


def _parsed(server: MailServer) -> EmailMessage:
    (envelope,) = server.received
    assert isinstance(envelope.content, bytes)
    found = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert not found.defects
    return found


@pytest.mark.parametrize("direct_tls", [True, False])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_mail_arrives_over_tls_after_logging_in(
    certificates: Certificates, mechanism: str, *, direct_tls: bool
) -> None:
    other = {"PLAIN": "LOGIN", "LOGIN": "PLAIN"}[mechanism]
    server = MailServer(
        certificates.context(), direct_tls=direct_tls, auth_exclude_mechanism=[other]
    )
    with server.running():
        _send(url_of(server.port, "smtps" if direct_tls else "smtp"))
    (envelope,) = server.received
    assert server.logins == [mechanism]
    assert set(server.greeted) == {"xn--bcher-kva.example"}
    assert envelope.mail_from == "no-reply@xn--bcher-kva.example"
    assert envelope.rcpt_tos == [MESSAGE.recipient]
    found = _parsed(server)
    assert found["From"] == "AI-Coder <no-reply@xn--bcher-kva.example>"
    assert found["To"] == MESSAGE.recipient
    assert found["Subject"] == MESSAGE.subject
    assert found["Message-ID"] == f"<{MESSAGE.id}@xn--bcher-kva.example>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["X-Auto-Response-Suppress"] == "All"
    assert abs(found["Date"].datetime.timestamp() - time.time()) < 60
    assert found.get_content_type() == "multipart/alternative"
    text, html = found.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(html, EmailMessage)
    assert text.get_content().replace("\r\n", "\n") == MESSAGE.text, "with all its dots"
    assert html.get_content().replace("\r\n", "\n") == MESSAGE.html
    assert [part["Content-Transfer-Encoding"] for part in (text, html)] == ["8bit", "8bit"]


def test_without_a_user_nobody_logs_in(certificates: Certificates) -> None:
    server = MailServer(certificates.context(), auth_required=False)
    with server.running():
        _send(url_of(server.port, user=""))
    assert len(server.received) == 1
    assert server.logins == []


def test_to_reach_a_server_is_to_log_in_and_to_send_nothing(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        transport(url_of(server.port)).reach(time.monotonic() + SECONDS)
    assert server.logins == ["PLAIN"]
    assert server.received == []


def test_a_long_password_is_sent_on_a_line_of_its_own(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        cause = failure(transport(f"smtp://{'u' * 200}:{'p' * 200}@localhost:{server.port}"))
    assert server.logins == ["PLAIN"]
    assert "rejects the login" in cause


def test_a_wrong_password_is_the_operators_to_mend(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        url = f"smtp://ada%40example.com:wrong-canary@localhost:{server.port}"
        cause = failure(transport(url))
    assert "rejects the login: check user and password in MAIL_URL (at AUTH, answer 535" in cause


def test_an_address_in_another_script_needs_smtputf8(certificates: Certificates) -> None:
    message = MESSAGE._replace(recipient="аня.canary@почта.example")
    server = MailServer(certificates.context(), enable_SMTPUTF8=True)
    with server.running():
        _send(url_of(server.port), message)
    (envelope,) = server.received
    assert envelope.rcpt_tos == ["аня.canary@xn--80a1acny.example"]
    assert "SMTPUTF8" in envelope.mail_options
    assert _parsed(server)["To"] == "аня.canary@xn--80a1acny.example"
    server = MailServer(certificates.context())
    with server.running():
        cause = failure(transport(url_of(server.port)), message, kind=Refused)
    assert "more than ASCII before its @, which the mail server localhost does not take" in cause


def test_a_domain_in_another_script_needs_nothing(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        _send(url_of(server.port), MESSAGE._replace(recipient="bob.canary@почта.example"))
    assert server.received[0].rcpt_tos == ["bob.canary@xn--80a1acny.example"]
    assert "SMTPUTF8" not in server.received[0].mail_options


@pytest.mark.parametrize(
    "recipient",
    [
        "bob.canary", "bob canary@example.com", "bob.canary@example.com>\r\nRCPT TO:<eve@e.example",
        "bob.canary@example.com\r\nBcc: eve@e.example", "bob.canary\0@example.com",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_anything_is_connected(recipient: str) -> None:
    cause = failure(transport(url_of(1)), MESSAGE._replace(recipient=recipient), kind=Refused)
    assert "No mail can be sent to the recipient's address" in cause


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"host": "other.example"}, "Hostname mismatch"),
        ({"valid_days": -1}, "certificate has expired"),
        ({"self_signed": True}, "self-signed certificate"),
    ],
)
def test_a_server_that_cannot_prove_its_name_gets_no_password(
    certificates: Certificates, scheme: str, how: dict[str, Any], reason: str
) -> None:
    server = MailServer(certificates.context(**how), direct_tls=scheme == "smtps")
    with server.running():
        cause = failure(transport(url_of(server.port, scheme)))
    assert f"localhost has a certificate that is not valid for this host: {reason}" in cause
    assert server.logins == []


@pytest.mark.parametrize(
    ("address", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("::1", "[0:0::0:1]")]
)
def test_an_address_of_either_kind_is_a_host_as_well(
    certificates: Certificates, address: str, written: str
) -> None:
    server = MailServer(certificates.context(address), address=address)
    with server.running():
        _send(url_of(server.port, host=written))
    assert len(server.received) == 1


def test_the_scheme_of_another_port_is_told(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        cause = failure(transport(url_of(server.port, "smtps")))
    assert "failed at TLS" in cause
    assert "A port with STARTTLS, such as 587, needs smtp:// in MAIL_URL." in cause


def test_a_host_that_is_not_there_is_told_by_what_is_wrong() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        cause = failure(transport(url_of(taken.getsockname()[1])))
    assert "The mail server localhost refuses connections: check the port" in cause
    cause = failure(transport(url_of(465, "smtps", "mail.invalid")))
    assert "The mail server mail.invalid cannot be found by its name" in cause


def test_a_second_connection_follows_a_first(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        opened = transport(url_of(server.port))
        for _ in range(2):
            opened.send(MESSAGE, time.monotonic() + SECONDS)
    assert len(server.received) == 2
    assert LINK.encode() in (server.received[1].content or b"")
