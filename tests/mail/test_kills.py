"""Who is killed with a mail loses none, and sends it twice only if nobody knew that it went."""

from __future__ import annotations

import email
import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shared.application import Application
from shared.model.mails import LEASE_SECONDS
from shared.settings import Settings
from shared.store.json_file import outbox
from shared.store.postgres.store import PostgresStore
from tests.conftest import STORES
from tests.support.emulator import environment
from tests.support.killed_mail import Killed, create
from tests.support.mail_servers import SETTINGS, Certificates, MailServer, url_of
from tests.support.stores import CLIENT
from tests.support.waiting import until

_numbers = itertools.count(1)


class Mails:
    """A mail server, an outbox, and who is killed and who is not."""

    def __init__(self, server: MailServer, killed: Killed, app: Application) -> None:
        self.server = server
        self.killed = killed
        self.app = app
        self.folder = Path(f"{app.settings.store.users_file}.outbox")

    @property
    def database(self) -> Any:
        store = self.app.store
        return store.database if isinstance(store, PostgresStore) else None

    def rows(self) -> dict[str, str]:
        """Read the recipients of what waits, without the code under test."""
        if self.database:
            return dict(self.database.execute("SELECT id::text, recipient FROM mail_outbox"))
        rows = [json.loads(path.read_bytes()) for path in self.folder.glob("*.json")]
        return {row["id"]: row["recipient"] for row in rows}

    def received(self) -> Counter[tuple[str, str]]:
        """Count what the server took, by recipient and Message-ID."""
        found: Counter[tuple[str, str]] = Counter()
        for envelope in self.server.received:
            assert isinstance(envelope.content, bytes)
            message_id = email.message_from_bytes(envelope.content)["Message-ID"]
            found[envelope.rcpt_tos[0], message_id] += 1
        return found

    def kill(self, number: int, task: str, *arguments: str) -> str:
        """Have a task killed at a line, wait until nothing of it goes on, and give the place."""
        code, places = self.killed.at(number, task, *arguments)
        assert (code, len(places)) == (-signal.SIGKILL, number)
        self.wait()
        return places[-1]

    def wait(self) -> None:
        """Wait until Postgres has seen that the other process is gone."""
        sessions = """
            SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        """
        if self.database:
            until(lambda: self.database.execute(sessions) == [[0]])

    def deliver_later(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """Deliver by a clock by which the leases of whoever was killed have ended."""
        seconds = LEASE_SECONDS + 1
        if self.database:
            self.database.execute(
                f"UPDATE mail_outbox SET due_at = due_at - interval '{seconds} seconds'"
            )
            return self.app.deliverer.deliver()
        with monkeypatch.context() as patch:
            patch.setattr(outbox, "time", SimpleNamespace(time=lambda: time.time() + seconds))
            return self.app.deliverer.deliver()

    def nothing_is_left(self) -> None:
        """See that nothing waits, not even half of a file."""
        assert self.rows() == {}
        if not self.database:
            assert [path.name for path in self.folder.iterdir()] == ["outbox.lock"]


@pytest.fixture(params=STORES)
def mails(
    request: pytest.FixtureRequest, tmp_path: Path, certificates: Certificates
) -> Iterator[Mails]:
    variables = SETTINGS | {
        "SSL_CERT_FILE": certificates.roots,
        "USERS_FILE": str(tmp_path / "users.json"),
    }
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        variables["DATABASE_URL"] = server.url(request.getfixturevalue("database"))
    with MailServer(certificates.context()).running() as server:
        variables["MAIL_URL"] = url_of(server.port)
        app = Application(Settings.from_env(environment(**variables)))
        with Killed(**variables) as killed:
            yield Mails(server, killed, app)
        app.close()


def _address() -> str:
    """Give one that nobody has. Each is as long, so that a message goes in as many pieces."""
    return f"user{next(_numbers):04}@example.com"


def _asked(mails: Mails) -> list[str]:
    """Have two mails in the outbox, and the server forget others; give the recipients."""
    mails.server.received.clear()
    addresses = [_address(), _address()]
    for address in addresses:
        create(mails.app.store, address)
    assert sorted(mails.rows().values()) == sorted(addresses)
    return addresses


def _places_of_a_delivery(mails: Mails) -> list[str]:
    """Give the functions of the lines of one that is not the first, which makes a file of locks."""
    for _ in range(2):
        _asked(mails)
        places = mails.killed.places("deliver")
        mails.nothing_is_left()
    return places


def _killed_at(mails: Mails, number: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Kill a delivery of two mails, and have another finish it.

    Gives how many mails had been taken and how many rows were left.
    """
    addresses = _asked(mails)
    place = mails.kill(number, "deliver")
    left, again = mails.rows(), mails.deliver_later(monkeypatch)
    assert again == len(left), (place, "what was left is sent")
    received = mails.received()
    assert sorted(to for to, _ in received) == sorted(addresses), (place, "with one Message-ID")
    had_taken = sum(received.values()) - again
    had_forgotten = len(addresses) - len(left)
    assert had_taken - had_forgotten in (0, 1), place
    assert max(received.values()) <= 2, place
    mails.nothing_is_left()
    return had_taken, len(left)


def _runs(places: list[str], name: str) -> list[list[int]]:
    """Give the numbers of the lines of a function, a list for each stretch of them."""
    numbered = itertools.groupby(enumerate(places, 1), lambda pair: pair[1].endswith(f".{name}"))
    return [[number for number, _ in pairs] for is_it, pairs in numbered if is_it]


def _some(first: int, end: int, count: int) -> list[int]:
    """Choose numbers, and all of the last ones, where what was done is told."""
    return sorted({*range(first, end, max(1, (end - first) // count)), *range(end - 6, end)})


def test_a_delivery_that_is_killed_loses_nothing_and_sends_twice_only_what_nobody_knows_of(
    mails: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = _places_of_a_delivery(mails)
    # Two mails are begun, sent in pieces, and forgotten.
    begun = [run[0] for run in _runs(places, "_settle")]
    sent = sorted(sorted(_runs(places, "_send"), key=len)[-2:])
    forgotten = [run[0] for run in _runs(places, "mail.delivered")]
    goes_on = [
        next(n for n in range(start, len(places)) if places[n - 1].startswith("mail.delivery."))
        for start in forgotten
    ]

    def killed_at(number: int) -> tuple[int, int]:
        return _killed_at(mails, number, monkeypatch)

    # While they are being leased, and with the lease, before the connection.
    assert {killed_at(number) for number in _some(1, begun[0] + 1, 8)} == {(0, 2)}
    # Within the message, of the first mail and of the second.
    assert len(sent[0]) > 6, "the message goes in pieces"
    assert killed_at(sent[0][len(sent[0]) // 2]) == (0, 2)
    assert killed_at(sent[1][len(sent[1]) // 2]) == (1, 1)
    # When the server has said yes, and before that is written down.
    assert killed_at(forgotten[0]) == (1, 2)
    assert killed_at(forgotten[1]) == (2, 1)
    # While the row, or the file, is being deleted.
    found = [killed_at(number) for number in _some(forgotten[0] + 1, goes_on[0], 8)]
    assert set(found) == {(1, 2), (1, 1)}
    assert found == sorted(found, reverse=True), "once gone, it stays so"
    # And when it has been.
    assert killed_at(goes_on[0]) == (1, 1)


@pytest.mark.long
def test_a_delivery_that_is_killed_wherever_it_is_loses_nothing(
    mails: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = len(_places_of_a_delivery(mails))
    found = [_killed_at(mails, number, monkeypatch) for number in range(1, last, 5)]
    assert {(0, 2), (1, 1), (2, 0)} <= set(found)
    assert set(found) <= {(0, 2), (1, 2), (1, 1), (2, 1), (2, 0)}


def _is_there(mails: Mails, address: str) -> bool:
    if mails.database:
        found = mails.database.execute("SELECT FROM users WHERE email = :email", email=address)
        return len(found) == 1
    users = json.loads(mails.app.settings.store.users_file.read_bytes())
    return address in [user["email"] for user in users]


@pytest.mark.parametrize("count", [7, pytest.param(60, marks=pytest.mark.long)])
def test_a_sign_up_that_is_killed_leaves_no_user_without_the_mail(
    mails: Mails, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A mail too many may be left by the JSON store; its link is of nobody."""
    create(mails.app.store, _address())
    mails.deliver_later(monkeypatch)
    last = len(mails.killed.places("sign_up", _address()))
    mails.deliver_later(monkeypatch)
    seen = []
    for number in _some(1, last, count):
        address = _address()
        place = mails.kill(number, "sign_up", address)
        rows, is_there = list(mails.rows().values()), _is_there(mails, address)
        assert rows in ([], [address]), place
        assert rows or not is_there, place
        assert mails.database is None or is_there == bool(rows), place
        seen.append((bool(rows), is_there))
        # Nothing of it is in anybody's way: the next one is served at once.
        other = _address()
        create(mails.app.store, other)
        assert mails.deliver_later(monkeypatch) == len(rows) + 1, place
        mails.nothing_is_left()
    assert seen == sorted(seen)
    assert {(False, False), (True, True)} <= set(seen)


@pytest.mark.parametrize("count", [7, pytest.param(60, marks=pytest.mark.long)])
def test_a_deletion_that_is_killed_takes_no_mail_from_a_user_who_stays(
    mails: Mails, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Who stays has what they had asked for, and who is gone was told so."""

    def asked() -> tuple[str, str]:
        address = _address()
        create(mails.app.store, address, "from_before")
        mails.app.store.mail.ask_for_mail("password_reset", address, locale=None, client=CLIENT)
        (mail_id,) = mails.rows()
        return address, mail_id

    asked()  # Of a user who stays all the time.
    mails.deliver_later(monkeypatch)
    last = len(mails.killed.places("delete", asked()[0]))
    assert mails.deliver_later(monkeypatch) == 1
    seen = []
    for number in _some(1, last, count):
        address, mail_id = asked()
        place = mails.kill(number, "delete", address)
        rows, is_there = mails.rows(), _is_there(mails, address)
        assert mail_id in rows or not is_there, (place, "what was asked for is there")
        assert rows.keys() - {mail_id} or is_there, (place, "the user is told")
        seen.append(is_there)
        assert mails.deliver_later(monkeypatch) == len(rows), place
        mails.nothing_is_left()
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {True, False}
