"""Hashing is bounded: who is one too many hears so at once, and everybody else is served."""

from __future__ import annotations

import socket
import threading
import time
import unicodedata
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import bcrypt
import httpx
import pytest

from shared.errors import InvalidCredentials, Overloaded
from shared.passwords import ADMITTED_PER_HASH, PasswordHasher
from shared.store import Store
from shared.tokens import SessionTokens
from shared.users import User
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.stores import credentials, log_in, sign_up

THREADS = 8
CONCURRENCY = 2
ADMITTED = ADMITTED_PER_HASH * CONCURRENCY
PASSWORD = "correct horse battery staple"
DECOMPOSED = unicodedata.normalize("NFD", "café-naïve-pass")
"""What is not in NFC is compared twice."""
SECONDS = 30


class Gated(PasswordHasher):
    """Lets nobody compute before the gate is open."""

    def __init__(self) -> None:
        super().__init__(4, concurrency=CONCURRENCY)
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()

    def verify(self, password: str, stored: str | None) -> bool:
        self.arrived.release()
        assert self.gate.wait(SECONDS)
        return super().verify(password, stored)


def test_as_many_logins_as_are_admitted_run_and_the_next_is_refused_until_one_has_ended(
    store: Store,
) -> None:
    hasher = Gated()

    ada = (store, hasher, "ada@example.com", PASSWORD)
    user = sign_up(*ada)
    with ThreadPoolExecutor(ADMITTED) as threads:
        logins = [threads.submit(log_in, *ada) for _ in range(ADMITTED)]
        assert all(hasher.arrived.acquire(timeout=SECONDS) for _ in logins)
        with pytest.raises(Overloaded):
            log_in(*ada)
        with pytest.raises(Overloaded):
            sign_up(store, hasher, "eve@example.com", PASSWORD)
        hasher.gate.set()
        assert [login.result(SECONDS) for login in logins] == [user] * ADMITTED
    assert credentials(store, "eve@example.com") is None
    assert log_in(*ada) == user


def test_a_login_that_fails_gives_its_place_back(store: Store) -> None:
    hasher = PasswordHasher(4)
    for _ in range(ADMITTED_PER_HASH + 1):
        with pytest.raises(InvalidCredentials):
            log_in(store, hasher, "ada@example.com", PASSWORD)
    for _ in range(ADMITTED_PER_HASH + 1):
        with pytest.raises(ZeroDivisionError), hasher.admission():
            _ = 1 / 0
    with hasher.admission():
        pass


def test_as_many_hashes_as_configured_are_computed_at_once_and_not_one_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = PasswordHasher(4, concurrency=CONCURRENCY)
    stored = hasher.hash(PASSWORD)
    meeting = threading.Barrier(CONCURRENCY, timeout=SECONDS)
    counting = threading.Lock()
    running: set[int] = set()
    counts: list[int] = []

    def together(candidate: bytes, target: bytes) -> object:
        with counting:
            running.add(threading.get_ident())
            counts.append(len(running))
        meeting.wait()
        outcome = bcrypt_function(candidate, target)
        with counting:
            running.remove(threading.get_ident())
        return outcome

    for name, compute in {
        "checkpw": lambda: hasher.verify(PASSWORD, stored),
        "hashpw": lambda: hasher.hash(PASSWORD),
    }.items():
        with monkeypatch.context() as patch, ThreadPoolExecutor(ADMITTED) as threads:
            bcrypt_function = getattr(bcrypt, name)
            patch.setattr(bcrypt, name, together)
            for future in [threads.submit(compute) for _ in range(ADMITTED)]:
                assert future.result(SECONDS)
    assert max(counts) == CONCURRENCY


def test_a_verification_that_computes_several_hashes_is_not_interrupted_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = PasswordHasher(4)
    start = threading.Barrier(ADMITTED_PER_HASH, timeout=SECONDS)
    order: list[int] = []
    checkpw = bcrypt.checkpw

    def noting(candidate: bytes, target: bytes) -> bool:
        order.append(threading.get_ident())
        return checkpw(candidate, target)

    def verify() -> bool:
        start.wait()
        return hasher.verify(DECOMPOSED, None)

    monkeypatch.setattr(bcrypt, "checkpw", noting)
    with ThreadPoolExecutor(ADMITTED_PER_HASH) as threads:
        futures = [threads.submit(verify) for _ in range(ADMITTED_PER_HASH)]
        assert not any(future.result(SECONDS) for future in futures)
    assert order[::2] == order[1::2]
    assert len(order) == 2 * ADMITTED_PER_HASH == 2 * len(set(order))


@contextmanager
def _logins_at_once(emulator: Emulator) -> Iterator[list[Future[httpx.Response]]]:
    """Send a login from each of as many clients as the server has threads."""

    def log_in(_: int) -> httpx.Response:
        with emulator.client() as client:
            return client.post(
                "/api/login", json={"email": "ada@example.com", "password": DECOMPOSED}
            )

    with ThreadPoolExecutor(THREADS) as threads:
        yield [threads.submit(log_in, number) for number in range(THREADS)]


def _is_refused(response: httpx.Response) -> bool:
    assert response.status_code == 503
    assert response.json()["code"] == "overloaded"
    return response.headers["Retry-After"] == "1"


def test_over_http_one_too_many_is_503_while_the_others_hash_and_probes_and_sessions_answer(
    tmp_path: Path,
) -> None:
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    token = SessionTokens([SECRET]).issue(user, time.time()).text
    settings = {"THREADS": str(THREADS), "HASH_CONCURRENCY": "1", "BCRYPT_ROUNDS": "13"}
    with (
        running_emulator(USERS_FILE=str(tmp_path / "users.json"), **settings) as emulator,
        emulator.client(headers={"Cookie": f"session={token}"}) as client,
        _logins_at_once(emulator) as logins,
    ):
        refused = list(islice(as_completed(logins, SECONDS), THREADS - ADMITTED_PER_HASH))
        assert all(_is_refused(login.result()) for login in refused)
        for path in ("/api/health", "/api/livez", "/api/user"):
            assert client.get(path).status_code == 200
        assert not all(login.done() for login in logins)
        served = [login.result() for login in logins if login not in refused]
        assert [response.status_code for response in served] == [401] * ADMITTED_PER_HASH


def test_over_http_logins_that_wait_for_a_silent_database_keep_no_probe_from_its_answer(
    postgres: Server,
) -> None:
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    token = SessionTokens([SECRET]).issue(user, time.time()).text
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = postgres.url("postgres", port=silent.getsockname()[1])
        with (
            running_emulator(
                DATABASE_URL=url,
                DATABASE_TIMEOUT="60",
                DATABASE_CONNECT_TIMEOUT="60",
                HASH_CONCURRENCY=str(CONCURRENCY),
                THREADS=str(THREADS),
            ) as emulator,
            emulator.client(headers={"Cookie": f"session={token}"}) as client,
            _logins_at_once(emulator) as logins,
        ):
            refused = list(islice(as_completed(logins, SECONDS), THREADS - ADMITTED))
            assert all(_is_refused(login.result()) for login in refused)
            for path in ("/api/livez", "/api/user"):
                assert client.get(path).status_code == 200
            waiting = [login for login in logins if not login.done()]
            assert len(waiting) == ADMITTED
            silent.close()
            codes = [login.result().json()["code"] for login in waiting]
            assert codes == ["store_unavailable"] * ADMITTED
