"""Many users of other systems log in at once, for the first time."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from shared.credentials.passwords import MEMORY_BUDGET, PasswordHasher
from shared.formats.foreign_hashes import MAX_MEMORY
from shared.formats.hash_recognition import argon2id, pbkdf2
from shared.rules.bulkhead import PLACES_PER_HASH
from tests.support.emulator import Emulator, running_emulator
from tests.support.foreign_hashes import FOREIGN, PASSWORD, PEPPER
from tests.support.waiting import until

LOGINS = 200
HASHES = 2
"""Computed at once."""
SETTINGS = {
    "USE_DATABASE": "false",
    "PASSWORD_PEPPERS": PEPPER,
    "HASH_CONCURRENCY": f"{HASHES}",
    "THREADS": "8",
}
_SLOW = (
    "django-bcrypt-sha256", "django-scrypt", "werkzeug-pbkdf2", "django-pbkdf2", "wordpress-6.8",
    "devise", "meteor", "aspnet-v3",
)  # fmt: skip
FEW = dict.fromkeys(_SLOW, 2) | {"django-argon2": 8}
"""How many have what costs most time, of which more would only have the test take longer."""


def _write(path: Path, users: Mapping[str, str]) -> None:
    """Write a users file: what is stored for each address."""
    rows = [
        {"id": str(uuid.uuid4()), "email": email, "password": stored, "provider": "local"}
        for email, stored in users.items()
    ]
    path.write_text(json.dumps(rows))


def _stored() -> Iterable[str]:
    """Give hashes of every scheme, and then more of those that cost less."""
    for name, number in FEW.items():
        yield from [FOREIGN[name]] * number
    yield from itertools.cycle(text for name, text in FOREIGN.items() if name not in FEW)


def _log_in(emulator: Emulator, email: str) -> None:
    """Log in as somebody does who is told to come again."""
    with emulator.client(timeout=120) as client:
        while True:
            response = client.post("/api/login", json={"email": email, "password": PASSWORD})
            if response.status_code != 503:
                break
            time.sleep(random.uniform(0.5, 2.5))  # Each refusal costs the process time as well.
    assert response.status_code == 200, response.text


def test_200_logins_of_mixed_schemes_at_once_all_succeed_while_the_process_stays_small_and_answers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "users.json"
    emails = [f"user{number}@example.com" for number in range(LOGINS)]
    _write(path, dict(zip(emails, _stored(), strict=False)))
    with (
        running_emulator(USERS_FILE=str(path), **SETTINGS) as emulator,
        emulator.client() as client,
    ):
        wrong = {"email": emails[0], "password": "a wrong password"}
        assert client.post("/api/login", json=wrong).status_code == 401
        before, is_over = emulator.peak_memory(), threading.Event()
        with ThreadPoolExecutor(LOGINS + 1) as pool:
            probes = pool.submit(_probe, client, is_over)
            logins = [pool.submit(_log_in, emulator, email) for email in emails]
            try:
                for login in logins:
                    login.result(timeout=300)
            finally:
                is_over.set()
            assert probes.result(timeout=60) > 10
        assert emulator.peak_memory() - before < MEMORY_BUDGET + 64 * 2**20
    stored = [user["password"] for user in json.loads(path.read_text())]
    assert all(one.startswith("$2b$04$") for one in stored)


def _probe(client: httpx.Client, is_over: threading.Event) -> int:
    """Ask whether the process is alive until all is over; give the number of answers."""
    answers = 0
    while not is_over.wait(0.05):
        assert client.get("/api/livez").status_code == 200
        answers += 1
    return answers


class Flood:
    """Wrong logins from one network, without pause."""

    def __init__(self, emulator: Emulator, emails: Iterable[str]) -> None:
        self._emulator, self._emails = emulator, list(emails)
        self._is_over = threading.Event()
        self._statuses: list[int] = []
        self._threads = [threading.Thread(target=self._come, args=(it,)) for it in self._emails]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

        assert set(self._statuses) == {401, 503}

    def answers(self) -> int:
        """Count the logins whose hash was computed."""
        return self._statuses.count(401)

    def goes_on(self) -> None:
        """Wait until somebody of it is refused from now on, because too many wait already."""
        before = self._statuses.count(503)
        until(lambda: self._statuses.count(503) > before)

    def _come(self, email: str) -> None:
        body = {"email": email, "password": "a wrong password"}
        with self._emulator.client(headers={"X-Forwarded-For": "203.0.113.9"}) as client:
            while not self._is_over.is_set():
                self._statuses.append(status := client.post("/api/login", json=body).status_code)
                if status == 503:
                    self._is_over.wait(0.05)


def test_nobody_waits_behind_the_flood_of_expensive_hashes_of_another_network(
    tmp_path: Path,
) -> None:
    expensive = [
        pbkdf2("sha256", 1_000_000, bytes(16), bytes(32)),
        argon2id(memory=MAX_MEMORY // 1024, passes=2, lanes=1, salt=bytes(16), key=bytes(32)),
    ]
    flood = {f"flood{number}@example.com": expensive[number % 2] for number in range(36)}
    ours = PasswordHasher(4).hash(PASSWORD)
    others = {"ours@example.com": ours, "theirs@example.com": FOREIGN["better-auth"]}
    path = tmp_path / "users.json"
    _write(path, flood | others)
    settings = SETTINGS | {"USERS_FILE": str(path), "TRUSTED_PROXIES": "1", "THREADS": "24"}
    with (
        running_emulator(**settings) as emulator,
        Flood(emulator, flood) as flooding,
        emulator.client(headers={"X-Forwarded-For": "198.51.100.7"}) as client,
    ):
        for email in others:
            flooding.goes_on()
            before, refusals = flooding.answers(), 0
            body = {"email": email, "password": PASSWORD}
            while (status := client.post("/api/login", json=body).status_code) == 503:
                refusals += 1  # No place became free in time: the machine is busy.
            assert status == 200
            # Only whoever has a place comes first: once to the comparison, once to our hash.
            assert flooding.answers() - before <= 2 * PLACES_PER_HASH * HASHES + refusals
        before = flooding.answers()
        for _ in range(10):
            assert client.get("/api/livez").status_code == 200
        assert flooding.answers() - before < 10
        flooding.goes_on()
        overloads = [it for it in emulator.log() if it.get("status") == 503]
        causes = {it["cause"] for it in overloads if it["client"].startswith("198.51.100.")}
        assert causes <= {"the wait timed out"}
