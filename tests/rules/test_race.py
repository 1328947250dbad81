"""Fifty sign-ups of one address at once, over threads and over two processes: one wins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.support.emulator import running_emulator

SIGN_UPS = 50


def _spelling(number: int) -> str:
    letters = "grace.hopper@example.com"
    spelled = "".join(
        letter.upper() if number >> (index % 6) & 1 else letter
        for index, letter in enumerate(letters)
    )
    return " " * (number % 3) + spelled + "\t" * (number % 2)


def test_of_fifty_sign_ups_in_fifty_spellings_one_wins(store_settings: dict[str, str]) -> None:
    assert len({_spelling(number) for number in range(SIGN_UPS)}) == SIGN_UPS
    barrier = threading.Barrier(SIGN_UPS)
    settings = store_settings | {"THREADS": str(SIGN_UPS // 2), "HASH_CONCURRENCY": "9"}
    # Whoever has asked waits for the last one, however busy the machine is.
    settings["KEEP_ALIVE_TIMEOUT"] = "600"
    with ExitStack() as stack:
        emulators = [stack.enter_context(running_emulator(**settings)) for _ in range(2)]

        def sign_up(number: int) -> tuple[int, str | None]:
            with emulators[number % 2].client() as client:
                client.get("/api/livez")
                barrier.wait(300)
                response = client.post(
                    "/api/signup",
                    json={"email": _spelling(number), "password": f"password {number:04}"},
                )
                return response.status_code, response.json().get("id")

        with ThreadPoolExecutor(SIGN_UPS) as threads:
            answers = list(threads.map(sign_up, range(SIGN_UPS)))
        statuses = [status for status, _ in answers]
        assert (statuses.count(201), statuses.count(409)) == (1, SIGN_UPS - 1)
        winner = statuses.index(201)
        for emulator in emulators:
            with emulator.client() as client:
                logins = [
                    client.post(
                        "/api/login",
                        json={"email": _spelling(0), "password": f"password {number:04}"},
                    )
                    for number in (winner, (winner + 1) % SIGN_UPS)
                ]
                assert [login.status_code for login in logins] == [200, 401]
                assert logins[0].json()["id"] == answers[winner][1]
