"""Who signs up or logs in while an import runs is neither lost nor doubled."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from shared.transfer import writing
from tests.support.commands import run
from tests.support.emulator import Emulator, running_emulator
from tests.support.import_faults import APPLY, state, url, waiting, write
from tests.support.interceptor import Interceptor, Message
from tests.support.transfers import Target, user
from tests.support.waiting import until

IMPORTED, SIGN_UPS = 2_000, 400
THEIRS = "the password of whom the import brings"


class _Traffic:
    """Clients of the functions that sign up and log in, and what they were answered.

    Every fourth of those who sign up does so under an address that the import brings.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [
            *(threading.Thread(target=self._sign_up) for _ in range(3)),
            *(threading.Thread(target=self._log_in) for _ in range(2)),
        ]
        self.passwords: dict[str, str] = {}
        """Of those who were told that they are signed up."""
        self.answers: Counter[tuple[str, int]] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join()

    @property
    def conflicts(self) -> list[str]:
        """The addresses of the import's under which somebody signed up."""
        return [email for email in self.passwords if email.startswith("user")]

    def _sign_up(self) -> None:
        with self._emulator.client() as client:
            while not self._stop.is_set() and (number := next(self._numbers)) < SIGN_UPS:
                name = f"User{number}" if number % 4 == 0 else f"fresh{number}"
                email, password = f"{name}@example.com", f"their own, number {number}"
                answer = client.post("/api/signup", json={"email": email, "password": password})
                client.cookies.clear()
                self.answers["signup", answer.status_code] += 1
                if answer.status_code == 201:
                    self.passwords[email.lower()] = password

    def _log_in(self) -> None:
        with self._emulator.client() as client:
            while not self._stop.is_set():
                number = random.randrange(IMPORTED)
                self.answers["login", self.log_in(client, f"user{number}@example.com", THEIRS)] += 1

    def log_in(self, client: httpx.Client, email: str, password: str) -> int:
        answer = client.post("/api/login", json={"email": email, "password": password})
        client.cookies.clear()
        return answer.status_code


@pytest.fixture(scope="module")
def imported() -> list[dict[str, Any]]:
    theirs = bcrypt.hashpw(THEIRS.encode(), bcrypt.gensalt(4)).decode()
    return [user(number, password=theirs) for number in range(IMPORTED)]


@pytest.mark.parametrize(
    ("already", "begins_at", "code"),
    [
        pytest.param(0, "ALTER TABLE identities DROP", 0, id="empty-and-locked"),
        pytest.param(
            0, "LOCK TABLE users", 3, id="empty-until-it-is-locked", marks=pytest.mark.long
        ),
        pytest.param(50, "SELECT coalesce(max(number)", 3, id="not-empty"),
    ],
)
def test_who_signs_up_during_an_import_is_neither_lost_nor_doubled(
    target: Target,
    interceptor: Interceptor,
    tmp_path: Path,
    imported: list[dict[str, Any]],
    already: int,
    begins_at: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who signs up first keeps the address, and the import says so and writes nothing.

    Whoever comes second is told that the address is taken.
    """
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", IMPORTED)
    users_file = write(tmp_path / "users.json", imported)
    if already:
        target.apply([user(IMPORTED + number) for number in range(already)])
    with (
        running_emulator(DATABASE_URL=url(target), HASH_CONCURRENCY="2") as emulator,
        emulator.client() as client,
    ):
        client.get("/api/health")
        traffic = _Traffic(emulator)
        begun = threading.Event()

        def watch(message: Message) -> None:
            if message.sql.startswith(begins_at) and not begun.is_set():
                begun.set()
                traffic.start()
                until(lambda: waiting(target) >= 3 if code == 0 else traffic.conflicts)

        interceptor.watch = watch
        try:
            first = run(interceptor.url(target.name), users_file, "apply", "--yes")
            assert first.code == code, first.error
            if code:
                assert state(target)[0][2:] == ([1, already] if already else [0, 0])
            again = run(url(target), users_file, *APPLY)
            assert again.code == 0, again.error
            if code == 0:
                until(lambda: traffic.answers["signup", 409])
            until(lambda: traffic.answers["signup", 201] and traffic.answers["login", 200])
        finally:
            traffic.stop()
        _check_traffic(traffic, target, imported, already)
        for email, password in traffic.passwords.items():
            assert traffic.log_in(client, email, password) == 200
        for row in imported[1:IMPORTED:100]:
            assert traffic.log_in(client, row["email"], THEIRS) == 200


def _check_traffic(
    traffic: _Traffic, target: Target, imported: list[dict[str, Any]], already: int
) -> None:
    assert set(traffic.answers) <= {
        ("signup", 201), ("signup", 409), ("signup", 503),
        ("login", 200), ("login", 401), ("login", 503),
    }  # fmt: skip
    assert traffic.answers["signup", 201]
    assert traffic.answers["login", 200]
    counts = target.verify(imported)[0].counts
    assert counts["email_taken"] == len(traffic.conflicts)
    brought = counts["identical"] + counts["kept"]
    assert brought == IMPORTED - len(traffic.conflicts)
    ((users, keys, _, records),) = state(target)
    assert users == keys
    assert records == brought + already
    unsure = traffic.answers["signup", 503]
    signed_up = users - records
    assert len(traffic.passwords) <= signed_up <= len(traffic.passwords) + unsure
