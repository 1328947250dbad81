"""Mail servers that refuse, hang, trickle, flood, cut or lie: what becomes of the mail."""

from __future__ import annotations

import gc
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.mail.transport import NotDelivered, Refused
from tests.support.mail_servers import (
    EHLO,
    MESSAGE,
    SECONDS,
    Answer,
    Certificates,
    MailServer,
    RudeServer,
    begin_tls,
    failure,
    flood,
    hang,
    hang_up,
    transport,
    trickle,
    url_of,
)

SOON = 1.5
"""One that some do."""
LATE = 10.0
"""By then every deadline of SOON is long over, on a busy machine, too."""
STEPS = ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "message")
TOLD = {"greeting": "the greeting", "message": "the message"}
"""What a step is called, if not by its command."""


@pytest.fixture(autouse=True, scope="module")
def _no_socket_is_left_open() -> Iterator[None]:
    """Collect what was left; an open socket is a warning, and so an error."""
    yield
    gc.collect()


def _failed(
    certificates: Certificates,
    answers: Mapping[str, Answer],
    kind: type[NotDelivered | Refused] = NotDelivered,
    seconds: float = SECONDS,
) -> tuple[str, RudeServer]:
    with RudeServer(certificates.context(), answers).running() as server:
        cause = failure(transport(url_of(server.port, "smtps")), kind=kind, seconds=seconds)
        assert server.is_left.wait(LATE), "the connection is closed"
    return cause, server


def test_a_polite_server_gets_every_step_in_order(certificates: Certificates) -> None:
    with RudeServer(certificates.context(), {}).running() as server:
        transport(url_of(server.port, "smtps")).send(MESSAGE, time.monotonic() + SECONDS)
        assert server.is_left.wait(LATE)
    (conversation,) = server.conversations
    *commands, body, farewell = conversation.heard
    assert [command.split(b" ")[0].decode() for command in commands] == [*STEPS[1:-1]]
    assert commands[2:4] == [
        b"MAIL FROM:<no-reply@xn--bcher-kva.example> BODY=8BITMIME",
        b"RCPT TO:<bob.canary@example.com>",
    ]
    assert b"\r\n\r\n..\r\n...two\r\n" in body, "dots are doubled"
    assert not re.search(rb"[^\r]\n|\r[^\n]", body)
    assert farewell == b"QUIT"


REFUSALS = [
    # What a server answers at which step, and whether the mail is tried again.
    ("greeting", "554 5.7.1 no", NotDelivered, "does not serve this machine"),
    ("greeting", "421 4.3.2 later", NotDelivered, "does not serve this machine"),
    ("EHLO", "502 5.5.1 what?", NotDelivered, "does not speak ESMTP with us"),
    ("EHLO", "421 4.3.2 later", NotDelivered, "does not speak ESMTP with us"),
    ("AUTH", "535 5.7.8 ada@example.com?", NotDelivered, "check user and password in MAIL_URL"),
    ("AUTH", "454 4.7.0 later", NotDelivered, "rejects the login"),
    ("AUTH", "334 ", NotDelivered, "rejects the login"),
    ("MAIL", "550 5.7.1 not yours", NotDelivered, "MAIL_FROM address as the sender"),
    ("MAIL", "530 5.7.0 log in", NotDelivered, "MAIL_FROM address as the sender"),
    ("MAIL", "452 4.3.1 full", NotDelivered, "MAIL_FROM address as the sender"),
    ("RCPT", "550 5.1.1 <bob.canary@example.com> unknown", Refused, "refuses the recipient"),
    ("RCPT", "550 bob.canary@example.com unknown", Refused, "refuses the recipient"),
    ("RCPT", "550 5.4.1 access denied", Refused, "refuses the recipient"),
    ("RCPT", "551 5.1.6 moved", Refused, "refuses the recipient"),
    ("RCPT", "552 5.2.2 full", Refused, "refuses the recipient"),
    ("RCPT", "553 5.1.3 what?", Refused, "refuses the recipient"),
    ("RCPT", "556 5.1.10 null MX", Refused, "refuses the recipient"),
    ("RCPT", "450 4.2.1 greylisted", NotDelivered, "for the recipient now"),
    ("RCPT", "452 4.2.2 full", NotDelivered, "for the recipient now"),
    ("RCPT", "421 4.7.0 too fast", NotDelivered, "for the recipient now"),
    ("RCPT", "554 5.7.1 relay access denied", NotDelivered, "for the recipient now"),
    ("RCPT", "530 5.7.0 log in", NotDelivered, "for the recipient now"),
    ("RCPT", "503 5.5.1 not now", NotDelivered, "for the recipient now"),
    ("RCPT", "550 5.1.8 bad sender", NotDelivered, "for the recipient now"),
    ("RCPT", "554 5.3.0 out of order", NotDelivered, "for the recipient now"),
    ("DATA", "451 4.3.0 later", NotDelivered, "does not take the message"),
    ("DATA", "554 no valid recipients", NotDelivered, "does not take the message"),
    ("DATA", "250 2.0.0 taken", NotDelivered, "does not take the message"),
    ("message", "554 5.1.1 unknown after all", Refused, "for its recipient"),
    ("message", "550 5.2.1 disabled", Refused, "for its recipient"),
    ("message", "554 5.1.8 sender not verified", NotDelivered, "does not take the message"),
    ("message", "554 message rejected", NotDelivered, "does not take the message"),
    ("message", "552 5.3.4 too big", NotDelivered, "does not take the message"),
    ("message", "451 4.7.1 later", NotDelivered, "does not take the message"),
    ("message", "354 go on", NotDelivered, "does not take the message"),
]


@pytest.mark.parametrize(("step", "answer", "kind", "sentence"), REFUSALS)
def test_a_refusal_is_final_only_where_it_is_about_the_recipient(
    certificates: Certificates,
    step: str,
    answer: str,
    kind: type[NotDelivered | Refused],
    sentence: str,
) -> None:
    cause, server = _failed(certificates, {step: f"{answer}\r\n".encode()}, kind)
    assert sentence in cause
    assert answer[:3] in cause
    heard = server.conversations[0].heard
    assert (heard[-1:] == [b"QUIT"]) == (not answer.startswith("3"))


def test_a_real_servers_refusals_are_understood(certificates: Certificates) -> None:
    server = MailServer(certificates.context())
    with server.running():
        for step, answer, kind in (
            ("RCPT", "550 5.1.1 no such user", Refused),
            ("RCPT", "451 4.7.1 greylisted", NotDelivered),
            ("message", "554 5.6.0 spam", NotDelivered),
        ):
            server.answers = {step: answer}
            failure(transport(url_of(server.port)), kind=kind)
    assert server.received == []


@pytest.mark.parametrize("behave", [hang, trickle(b"250-x\r\n")], ids=["hangs", "trickles"])
def test_a_server_that_hangs_or_trickles_ends_with_the_deadline(
    certificates: Certificates, behave: Answer
) -> None:
    def fail(step: str) -> str:
        return _failed(certificates, {step: behave}, seconds=SOON)[0]

    began = time.monotonic()
    with ThreadPoolExecutor(len(STEPS)) as threads:
        causes = list(threads.map(fail, STEPS))
    assert SOON * 0.9 < time.monotonic() - began < LATE
    for step, cause in zip(STEPS, causes, strict=True):
        assert f"did not answer in time (at {TOLD.get(step, step)})" in cause


@pytest.mark.parametrize("step", STEPS)
def test_a_server_that_hangs_up_is_tried_again_also_after_the_message(
    certificates: Certificates, step: str
) -> None:
    cause, _ = _failed(certificates, {step: hang_up})
    assert f"hung up (at {TOLD.get(step, step)})" in cause


@pytest.mark.parametrize("step", ["greeting", "RCPT", "message"])
@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (flood(b"x"), "answers without an end"),
        (flood(b"250-x\r\n"), "answers something that is not SMTP"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "answers something that is not SMTP"),
        (b"\r\n", "answers something that is not SMTP"),
        (b"250-a\r\n550 b\r\n", "answers something that is not SMTP"),
        (b"\xff\xfe\0\r\n", "answers something that is not SMTP"),
        (b"2500 x\r\n", "answers something that is not SMTP"),
    ],
)
def test_a_server_that_does_not_speak_smtp_is_left(
    certificates: Certificates, step: str, answer: Answer, sentence: str
) -> None:
    cause, _ = _failed(certificates, {step: answer})
    assert sentence in cause


def test_a_server_that_says_more_than_it_was_asked_is_not_believed(
    certificates: Certificates,
) -> None:
    cause, _ = _failed(certificates, {"RCPT": b"250 ok\r\n354 go on\r\n250 taken\r\n"})
    assert "talks out of turn" in cause


@pytest.mark.parametrize(
    "offers", [b"250 mail.test\r\n", b"250-mail.test\r\n250 AUTH CRAM-MD5 XOAUTH2\r\n"]
)
def test_a_server_that_lets_nobody_log_in_gets_no_password(
    certificates: Certificates, offers: bytes
) -> None:
    cause, server = _failed(certificates, {"EHLO": offers})
    assert "offers neither AUTH PLAIN nor AUTH LOGIN: no password was sent to it" in cause
    assert len(server.conversations[0].heard) == 2


IN_CLEAR = b"250-mail.test\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"EHLO": EHLO}, "offers no STARTTLS, without which nothing is sent to it"),
        ({"STARTTLS": b"454 4.7.0 later\r\n"}, "offers STARTTLS and refuses it"),
        ({"STARTTLS": b"220 go\r\n250 slipped in\r\n"}, "said something ahead of TLS"),
        ({"STARTTLS": b"220 go\r\nHTTP/1.1 no\r\n\r\n"}, "said something ahead of TLS"),
        ({"STARTTLS": hang_up}, "hung up (at STARTTLS)"),
    ],
)
def test_nothing_is_sent_where_tls_does_not_begin(
    certificates: Certificates, answers: dict[str, Answer], sentence: str
) -> None:
    with RudeServer(None, {"EHLO": IN_CLEAR} | answers).running() as server:
        cause = failure(transport(url_of(server.port)))
        assert server.is_left.wait(LATE)
    assert sentence in cause
    verbs = [said.split(b" ")[0] for said in server.conversations[0].heard]
    assert set(verbs) <= {b"EHLO", b"STARTTLS", b"QUIT"}


def test_what_comes_in_clear_where_tls_should_begin_is_not_taken_for_an_answer(
    certificates: Certificates,
) -> None:
    def slip_in(conversation: Any) -> None:
        conversation.say(b"220 go\r\n")
        time.sleep(0.2)  # Not in one packet with the answer.
        conversation.say(b"250 slipped in\r\n" * 5)
        hang(conversation)

    with RudeServer(None, {"EHLO": IN_CLEAR, "STARTTLS": slip_in}).running() as server:
        cause = failure(transport(url_of(server.port)))
    assert "failed at TLS" in cause


def test_what_was_offered_in_clear_is_forgotten(certificates: Certificates) -> None:
    is_secret = threading.Event()

    def greet(conversation: Any) -> None:
        conversation.say(b"250 mail.test\r\n" if is_secret.is_set() else IN_CLEAR)

    def begin(conversation: Any) -> None:
        is_secret.set()
        conversation.say(begin_tls(certificates.context(), b"220 go\r\n"))

    with RudeServer(None, {"EHLO": greet, "STARTTLS": begin}).running() as server:
        cause = failure(transport(url_of(server.port)))
    assert "no password was sent" in cause


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_host_that_hangs_at_tls_ends_with_the_deadline(
    certificates: Certificates, scheme: str
) -> None:
    def begin(conversation: Any) -> None:
        conversation.say(b"220 go\r\n" if scheme == "smtp" else b"")
        hang(conversation)

    answers: dict[str, Answer] = {"EHLO": IN_CLEAR, "STARTTLS": begin}
    if scheme == "smtps":
        answers["greeting"] = begin
    with RudeServer(None, answers).running() as server:
        began = time.monotonic()
        cause = failure(transport(url_of(server.port, scheme)), seconds=SOON)
        assert time.monotonic() - began < LATE
    assert "did not answer in time (at TLS)" in cause


def test_a_port_that_waits_for_tls_is_told(certificates: Certificates) -> None:
    server = MailServer(certificates.context(), direct_tls=True)
    with server.running():
        cause = failure(transport(url_of(server.port)), seconds=SOON)
    assert "did not answer in time (at the greeting)" in cause
    assert "A port that begins with TLS, such as 465, needs smtps:// in MAIL_URL." in cause


def test_a_name_that_is_looked_up_for_ever_ends_with_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(30) and [])
    began = time.monotonic()
    cause = failure(transport("smtps://mail.test"), seconds=SOON)
    is_over.set()
    assert time.monotonic() - began < LATE
    assert "mail.test did not answer in time (at connecting)" in cause


def test_an_address_that_leads_nowhere_leaves_time_for_the_next(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = MailServer(certificates.context())
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, server.running():
        where = [deaf.getsockname(), ("127.0.0.1", server.port)]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # From now on nobody is let in, and nobody told so.
            filler.setblocking(False)
            filler.connect_ex(where[0])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in where]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        transport(url_of(server.port)).send(MESSAGE, time.monotonic() + LATE / 2)
        for filler in fillers:
            filler.close()
    assert len(server.received) == 1


def test_a_deadline_that_has_passed_connects_to_nothing() -> None:
    cause = failure(transport(url_of(1)), seconds=-1)
    assert "did not answer in time (at connecting)" in cause


def test_tls_of_another_century_is_not_spoken(certificates: Certificates) -> None:
    context = certificates.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with RudeServer(context, {}).running() as server:
        cause = failure(transport(url_of(server.port, "smtps")))
    assert "TLS" in cause
