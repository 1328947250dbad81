"""What waits in the outbox reaches a real mail server: at least once, for a day, and apart."""

from __future__ import annotations

import email
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from shared.credentials.mail_tokens import MailTokens
from shared.credentials.signing import Signing
from shared.environment import Environment
from shared.mail.delivery import Deliverer
from shared.mail.settings import MailSettings
from shared.model.mails import MAX_AGE, Mail
from shared.model.users import User
from shared.store.contract import Store
from shared.store.json_file.outbox import OutboxFolder
from shared.store.postgres.store import PostgresStore
from tests.support.mail_servers import SETTINGS, Certificates, MailServer, url_of
from tests.support.stores import CLIENT, opened_store, pass_time
from tests.support.waiting import until

TOKENS = MailTokens(Signing(["x" * 32]))


@pytest.fixture
def store(store_settings: dict[str, str]) -> Iterator[Store]:
    """A store that sends mail."""
    opened = opened_store(ENVIRONMENT="development", **store_settings)
    yield opened
    opened.close()


def _deliverer(store: Store, port: int) -> Deliverer:
    settings = MailSettings.read(Environment(SETTINGS | {"MAIL_URL": url_of(port)}))
    return Deliverer(store.mail, TOKENS, settings)


def _ask(store: Store, *addresses: str) -> None:
    for address in addresses:
        user = User(str(uuid.uuid4()), address, None, "local")
        store.create_user(user, "hash")
        store.mail.ask_for_mail("password_reset", address, locale=None, client=CLIENT)


def _due(store: Store) -> None:
    """Let what is leased or postponed be due now."""
    if isinstance(found := getattr(store, "_postgres", store), PostgresStore):
        found.database.execute("UPDATE mail_outbox SET due_at = CURRENT_TIMESTAMP")
    else:
        outbox: OutboxFolder = store.mail._outbox  # type: ignore[attr-defined]
        for row in list(outbox._rows()):
            outbox._write(row | {"due_at": 0})


def _received(server: MailServer) -> list[tuple[str, str]]:
    """Give recipient and Message-ID of what a server took."""
    found = []
    for envelope in server.received:
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content)
        found.append((envelope.rcpt_tos[0], message["Message-ID"]))
    return found


@contextmanager
def _server(certificates: Certificates, **answers: str) -> Iterator[MailServer]:
    server = MailServer(certificates.context())
    server.answers = answers
    with server.running():
        yield server


def test_what_waits_is_sent_and_forgotten(store: Store, certificates: Certificates) -> None:
    _ask(store, "ada@example.com", "bob@example.com")
    store.mail.ask_for_mail("password_reset", "nobody@example.com", locale=None, client=CLIENT)
    with _server(certificates) as server:
        deliverer = _deliverer(store, server.port)
        assert deliverer.deliver() == 2
        assert {to for to, _ in _received(server)} == {"ada@example.com", "bob@example.com"}
    assert store.mail.lease(10) == []
    assert deliverer.status == (0, 0)


def test_a_server_that_is_away_delays_mail_and_loses_none(
    store: Store, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    _ask(store, "ada@example.com", "bob@example.com")
    with _server(certificates, MAIL="451 4.3.0 later") as server:
        deliverer = _deliverer(store, server.port)
        assert deliverer.deliver() == 0
        assert store.mail.status().waiting == 2
        _due(store)
        server.answers = {}
        assert deliverer.deliver() == 2
        assert len(_received(server)) == 2
    output = capsys.readouterr().out
    assert "A mail could not be delivered yet" in output
    assert "example.com" not in output.replace("mail.example.com", "")


def test_a_mail_that_is_not_taken_holds_up_no_other(
    store: Store, certificates: Certificates
) -> None:
    _ask(store, "ada@example.com", "bob@example.com")
    with _server(certificates, RCPT="450 4.2.0 greylisted") as server:
        deliverer = _deliverer(store, server.port)
        assert deliverer.deliver() == 0
        waiting = store.mail
        _due(store)
        assert {mail.tries for mail in waiting.lease(10)} == {1}
        _due(store)
        server.answers = {}
        assert deliverer.deliver() == 2


def test_a_recipient_who_is_refused_is_told_loudly_and_forgotten(
    store: Store, certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    _ask(store, "ada@example.com")
    with _server(certificates, RCPT="550 5.1.1 no such user") as server:
        assert _deliverer(store, server.port).deliver() == 0
    assert store.mail.status().waiting == 0
    output = capsys.readouterr().out
    assert '"severity": "ERROR"' in output
    assert "A mail was refused" in output
    assert "ada@" not in output


def test_a_mail_whose_answer_was_lost_comes_twice_with_one_message_id(
    store: Store, certificates: Certificates
) -> None:
    _ask(store, "ada@example.com")
    with _server(certificates) as server:
        (mail,) = store.mail.lease(1)
        deliverer = _deliverer(store, server.port)
        deliverer._transport.send(deliverer._message(mail), time.monotonic() + 20)
        _due(store)  # Whoever sent it was killed before it was forgotten.
        assert deliverer.deliver() == 1
        first, second = _received(server)
        assert first == second


def test_two_deliverers_send_each_mail_once(store: Store, certificates: Certificates) -> None:
    addresses = [f"user{number}@example.com" for number in range(12)]
    _ask(store, *addresses)
    with _server(certificates) as server:
        deliverers = [_deliverer(store, server.port) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:
            sent = sum(pool.map(Deliverer.deliver, deliverers))
        assert sent == len(addresses)
        assert sorted(to for to, _ in _received(server)) == sorted(addresses)


def test_a_mail_is_given_up_after_a_day_and_that_is_said(
    store: Store,
    certificates: Certificates,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _ask(store, "ada@example.com")
    lease = store.mail.lease

    def aged(limit: int) -> list[Mail]:
        return [mail._replace(is_too_old=True) for mail in lease(limit)]

    monkeypatch.setattr(store.mail, "lease", aged)
    with _server(certificates) as server:
        assert _deliverer(store, server.port).deliver() == 0
        assert server.received == []
    assert store.mail.status().waiting == 0
    assert "A mail was given up" in capsys.readouterr().out


def test_a_day_is_told_by_the_stores_clock(store: Store) -> None:
    _ask(store, "ada@example.com")
    pass_time(store, MAX_AGE)
    (mail,) = store.mail.lease(1)
    assert mail.is_too_old


def test_nobody_who_asks_for_a_delivery_is_forgotten(
    store: Store, certificates: Certificates
) -> None:
    """Whoever comes while another is at it goes at once, and what they came for is sent."""
    _ask(store, "ada@example.com")
    is_sending, goes_on = threading.Event(), threading.Event()
    with _server(certificates) as server:
        deliverer = _deliverer(store, server.port)
        send = deliverer._transport.send

        class Slow:
            def send(self, message: Any, deadline: float) -> None:
                is_sending.set()
                assert goes_on.wait(30)
                send(message, deadline)

        deliverer._transport = Slow()
        deliverer.wake()
        assert is_sending.wait(30)
        _ask(store, "bob@example.com")
        assert deliverer.deliver() == 0
        goes_on.set()
        until(lambda: len(server.received) == 2)
        deliverer.close()
