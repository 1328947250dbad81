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
from shared.mail import delivery
from shared.mail.delivery import Deliverer
from shared.mail.settings import MailSettings
from shared.model.mails import MAX_AGE, Mail
from shared.model.users import User
from shared.store.contract import Store
from shared.store.json_file.outbox import OutboxFolder
from shared.store.postgres.store import PostgresStore
from tests.support.mail_servers import (
    SETTINGS,
    Answer,
    Certificates,
    MailHook,
    MailServer,
    RudeServer,
    hang,
    hang_up,
    url_of,
)
from tests.support.postgres import free_port
from tests.support.stores import CLIENT, opened_store, pass_time
from tests.support.waiting import until

TOKENS = MailTokens(Signing(["x" * 32]))


@pytest.fixture
def store(store_settings: dict[str, str]) -> Iterator[Store]:
    """A store that sends mail."""
    opened = opened_store(ENVIRONMENT="development", **store_settings)
    yield opened
    opened.close()


def _deliverer(store: Store, port: int, scheme: str = "smtp") -> Deliverer:
    settings = MailSettings.read(Environment(SETTINGS | {"MAIL_URL": url_of(port, scheme)}))
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


def _clock_and_due(store: Store, mail_id: str) -> tuple[float, float]:
    """Give the time by the store's clock, and when it tries a mail again."""
    if isinstance(found := getattr(store, "_postgres", store), PostgresStore):
        ((now, due),) = found.database.execute(
            "SELECT extract(epoch FROM clock_timestamp())::float8, extract(epoch FROM due_at)"
            "::float8 FROM mail_outbox WHERE id = :id::uuid",
            id=mail_id,
        )
        return now, due
    outbox: OutboxFolder = store.mail._outbox  # type: ignore[attr-defined]
    (row,) = [row for row in outbox._rows() if row["id"] == mail_id]
    return time.time(), row["due_at"]


def _message_id(content: bytes) -> str:
    return str(email.message_from_bytes(content)["Message-ID"])


def _received(server: MailServer) -> list[tuple[str, str]]:
    """Give recipient and Message-ID of what a server took."""
    found = []
    for envelope in server.received:
        assert isinstance(envelope.content, bytes)
        found.append((envelope.rcpt_tos[0], _message_id(envelope.content)))
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


AWAY: dict[str, dict[str, Answer] | None] = {
    "refuses the connection": None,
    "hangs at the greeting": {"greeting": hang},
    "hangs after the message": {"message": hang},
    "cuts at the greeting": {"greeting": hang_up},
    "cuts at the message": {"DATA": hang_up},
    "cuts after the message": {"message": hang_up},
    "goes away": {"greeting": b"421 4.3.2 later\r\n"},
    "serves nobody": {"greeting": b"554 5.7.1 no\r\n"},
    "lets nobody in": {"AUTH": b"535 5.7.8 no\r\n"},
    "lets nobody in for now": {"AUTH": b"454 4.7.0 later\r\n"},
    "takes no sender": {"MAIL": b"550 5.7.1 not yours\r\n"},
    "relays nothing": {"RCPT": b"554 5.7.1 denied\r\n"},
    "is full": {"message": b"452 4.3.1 full\r\n"},
}
"""What a mail server does that has nothing to do with the mail; None where there is none."""


@pytest.mark.parametrize(
    "store_settings",
    ["json", "postgres", pytest.param("fallback", marks=pytest.mark.long)],
    indirect=True,
)
@pytest.mark.parametrize("fault", AWAY)
def test_a_server_that_comes_back_gets_each_mail_and_twice_only_what_it_did_not_answer(
    store: Store, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    addresses, port, answers = ["ada@example.com", "bob@example.com"], free_port(), AWAY[fault]
    _ask(store, *addresses)
    deliverer = _deliverer(store, port, "smtps")
    had: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "SEND_SECONDS", 1.5 if "hangs" in fault else 20.0)
        if answers is None:
            assert deliverer.deliver() == 0
        else:
            with RudeServer(certificates.context(), answers, port).running() as rude:
                assert deliverer.deliver() == 0
            said = [text for conversation in rude.conversations for text in conversation.heard]
            had = [_message_id(text) for text in said if b"Message-ID" in text]
    assert store.mail.status().waiting == 2
    _due(store)
    with MailServer(certificates.context(), direct_tls=True, port=port).running() as server:
        assert deliverer.deliver() == 2
        assert sorted(to for to, _ in _received(server)) == addresses
        again = {message_id for _, message_id in _received(server)}
    assert store.mail.status() == (0, 0)
    assert bool(had) == (fault in ("hangs after the message", "cuts after the message", "is full"))
    assert set(had) <= again


@pytest.mark.parametrize("answer", ["421 4.3.2 later", "450 4.2.0 greylisted"])
def test_a_mail_waits_twice_as_long_each_time_up_to_an_hour(
    store: Store, certificates: Certificates, answer: str
) -> None:
    _ask(store, "ada@example.com")
    (mail,) = store.mail.lease(1)
    with _server(certificates, MAIL=answer, RCPT=answer) as server:
        deliverer = _deliverer(store, server.port)
        for seconds in (30, 60, 120, 240, 480, 960, 1920, 3600, 3600):
            _due(store)
            before, _ = _clock_and_due(store, mail.id)
            assert deliverer.deliver() == 0
            after, due = _clock_and_due(store, mail.id)
            assert before + seconds <= due <= after + seconds
            assert store.mail.lease(1) == []
        assert server.received == []


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


@pytest.mark.parametrize(("status", "others"), [(400, 1), (413, 1), (500, 1), (429, 0), (503, 0)])
def test_a_mail_at_which_a_hook_fails_holds_up_no_other_unless_the_hook_is_away(
    store: Store, certificates: Certificates, status: int, others: int
) -> None:
    _ask(store, "ada@example.com", "bob@example.com")
    with MailHook(certificates.context()).running() as hook:
        hook.statuses = {"ada@example.com": status}
        secret = {"MAIL_HOOK_SECRET": f"whsec_{'k' * 32}", "MAIL_URL": hook.url}
        settings = MailSettings.read(Environment(SETTINGS | secret))
        assert Deliverer(store.mail, TOKENS, settings).deliver() == others
        assert len(hook.received) == 1 + others
    assert store.mail.status().waiting == 2 - others


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


def test_who_closes_waits_for_no_other_run(store: Store, certificates: Certificates) -> None:
    with _server(certificates) as server:
        deliverer = _deliverer(store, server.port)
        deliverer.wake()
        thread = deliverer._thread
        assert thread is not None
        deliverer.close()
        assert not thread.is_alive()
