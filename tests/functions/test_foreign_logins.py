"""Many users of other systems log in at once, for the first time."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from shared.credentials.passwords import MEMORY_BUDGET
from tests.support.emulator import Emulator, running_emulator
from tests.support.foreign_hashes import FOREIGN, PASSWORD, PEPPER

LOGINS = 200


def _log_in(emulator: Emulator, email: str) -> None:
    """Log in as somebody does who is told to come again."""
    with emulator.client(timeout=120) as client:
        while True:
            response = client.post("/api/login", json={"email": email, "password": PASSWORD})
            if response.status_code != 503:
                break
            time.sleep(0.5)
    assert response.status_code == 200, response.text


def test_200_logins_of_mixed_schemes_at_once_all_succeed_while_the_process_stays_small_and_answers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "users.json"
    kinds = itertools.islice(itertools.cycle(FOREIGN.values()), LOGINS)
    emails = [f"user{number}@example.com" for number in range(LOGINS)]
    users = [
        {"id": str(uuid.uuid4()), "email": email, "password": stored, "provider": "local"}
        for email, stored in zip(emails, kinds, strict=True)
    ]
    path.write_text(json.dumps(users))
    settings = {
        "USE_DATABASE": "false",
        "USERS_FILE": str(path),
        "PASSWORD_PEPPERS": PEPPER,
        "HASH_CONCURRENCY": "2",
        "THREADS": "8",
    }
    with running_emulator(**settings) as emulator, emulator.client() as client:
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
