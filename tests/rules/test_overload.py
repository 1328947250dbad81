"""Hashing is bounded: nobody takes it from others, and everything else is answered meanwhile."""

from __future__ import annotations

import socket
import threading
import time
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import bcrypt
import httpx
import pytest

from shared.application import open_store
from shared.credentials.passwords import PasswordHasher
from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.errors import (
    InvalidCredentials,
    Overloaded,
    StoreBusy,
    TooManyAttempts,
    WrongPassword,
)
from shared.model.clients import Client
from shared.model.users import User
from shared.rules.bulkhead import PLACES_PER_HASH, Bulkhead, Counts
from shared.rules.gate import Gate
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.stores import (
    CLIENT,
    accounts_of,
    credentials,
    log_in,
    make_gate,
    session_of,
    sign_up,
)
from tests.support.waiting import until

THREADS = 8
CONCURRENCY = 2
CALLERS = 3
ROOM = 6
"""For holders and waiters: three quarters of the threads."""
ELSEWHERE = Client("198.51.100.9")
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


@pytest.fixture
def limited(store_settings: dict[str, str]) -> Iterator[Store]:
    """An empty store of each kind in turn, with low limits."""
    limits = {"MAX_LOGIN_ATTEMPTS": "3", "MAX_CLIENT_ATTEMPTS": "5", "MAX_SIGNUPS": "2"}
    opened = open_store(Settings.from_env({"SESSION_SECRET": SECRET} | limits | store_settings))
    yield opened
    opened.close()


def test_as_many_logins_as_there_is_room_for_run_or_wait_and_the_next_is_refused(
    store: Store,
) -> None:
    hasher, gate = Gated(), make_gate(places=4, room=6)
    ada = (store, hasher, "ada@example.com", PASSWORD)
    user = sign_up(*ada, gate=gate)
    with ThreadPoolExecutor(6) as threads:
        logins = [threads.submit(log_in, *ada, gate=gate) for _ in range(6)]
        assert all(hasher.arrived.acquire(timeout=SECONDS) for _ in range(4))
        until(lambda: gate.bulkhead.counts() == Counts(held=4, waiting=2))
        with pytest.raises(Overloaded):
            log_in(*ada, gate=gate)
        with pytest.raises(Overloaded):
            sign_up(store, hasher, "eve@example.com", PASSWORD, gate=gate)
        hasher.gate.set()
        assert [login.result(SECONDS) for login in logins] == [user] * 6
    assert credentials(store, "eve@example.com") is None
    assert log_in(*ada, gate=gate) == user


def test_a_login_that_fails_gives_its_place_back(store: Store) -> None:
    gate = make_gate(places=1, room=1)
    for _ in range(3):
        with pytest.raises(InvalidCredentials):
            log_in(store, PasswordHasher(4), "ada@example.com", PASSWORD, gate=gate)
    assert gate.bulkhead.counts() == Counts(held=0, waiting=0)


@pytest.mark.parametrize("networks", [1, 12])
def test_beside_connections_that_guess_without_pause_every_login_of_others_succeeds(
    store: Store, networks: int
) -> None:
    hasher, gate = PasswordHasher(4), make_gate()
    users = [sign_up(store, hasher, f"owner{n}@example.com", PASSWORD) for n in range(10)]
    is_over = threading.Event()

    def attack(number: int) -> int:
        client, refused = Client(f"203.0.113.{number % networks}"), 0
        while not is_over.is_set():
            try:
                log_in(store, hasher, "owner0@example.com", "wrong", gate=gate, client=client)
            except Overloaded:
                refused += 1
            except InvalidCredentials:
                pass
        return refused

    with ThreadPoolExecutor(12) as threads:
        attacks = [threads.submit(attack, number) for number in range(12)]
        try:
            until(lambda: gate.bulkhead.counts() == Counts(held=2, waiting=4))
            for number, user in enumerate(users):
                home = Client(f"100.64.{number}.7")
                owner = (user.email, PASSWORD)
                assert log_in(store, hasher, *owner, gate=gate, client=home) == user
        finally:
            is_over.set()
        assert sum(attack.result(SECONDS) for attack in attacks)


@pytest.mark.parametrize("how", ["full", "displaced", "expired"])
def test_what_is_refused_for_want_of_a_place_has_not_been_counted(limited: Store, how: str) -> None:
    hasher = PasswordHasher(4)
    ada = (limited, hasher, "ada@example.com", PASSWORD)
    user = sign_up(*ada, client=ELSEWHERE)
    session = session_of(user)
    gate = Gate(
        Bulkhead(1, 1 if how == "full" else 2, patience=SECONDS if how == "displaced" else 0.01)
    )

    newcomers = (Client(f"100.64.{number}.7") for number in range(256))

    def change_password() -> None:
        accounts_of(limited, hasher, gate).change_password(
            session, current="a wrong guess", new="another long passphrase", client=CLIENT
        )

    def refused(ask: Callable[[], object]) -> None:
        with ThreadPoolExecutor(2) as threads, gate.bulkhead.place(ELSEWHERE):
            asked = threads.submit(ask)
            if how == "displaced":
                until(lambda: gate.bulkhead.counts().waiting)
                newcomer = threads.submit(_take, gate, next(newcomers))
            assert isinstance(asked.exception(SECONDS), Overloaded)
        if how == "displaced":
            newcomer.result(SECONDS)

    _take(gate, CLIENT)  # So that a newcomer has had less.
    for _ in range(4):
        refused(lambda: log_in(*ada[:3], "a wrong guess", gate=gate))
        refused(lambda: sign_up(limited, hasher, "eve@example.com", PASSWORD, gate=gate))
        refused(change_password)
    assert log_in(*ada, gate=gate) == user
    for name in ("eve", "mallory"):
        sign_up(limited, hasher, f"{name}@example.com", PASSWORD, gate=gate)


def _take(gate: Gate, client: Client) -> None:
    with gate.bulkhead.place(client):
        pass


def test_an_attempt_is_given_back_where_the_account_changed_meanwhile(limited: Store) -> None:
    user = sign_up(limited, PasswordHasher(4), "ada@example.com", PASSWORD)

    class Overtaken(PasswordHasher):
        """Is overtaken by another change while it computes the new hash."""

        def hash(self, password: str) -> str:
            limited.revoke_all_sessions(session_of(user), CLIENT)
            return super().hash(password)

    for _ in range(6):
        with pytest.raises(StoreBusy):
            accounts_of(limited, Overtaken(4)).change_password(
                session_of(user), current=PASSWORD, new="another long passphrase", client=CLIENT
            )
        user = log_in(limited, PasswordHasher(4), user.email, PASSWORD)
    for guess in ("wrong", "wrong", PASSWORD):
        if guess == PASSWORD:
            assert log_in(limited, PasswordHasher(4), user.email, guess) == user
        else:
            with pytest.raises(InvalidCredentials):
                log_in(limited, PasswordHasher(4), user.email, guess)


def test_a_network_that_is_known_to_be_locked_needs_no_place(limited: Store) -> None:
    hasher, gate = PasswordHasher(4), make_gate(places=1, room=1)
    user = sign_up(limited, hasher, "ada@example.com", PASSWORD, client=ELSEWHERE)

    def guess() -> None:
        log_in(limited, hasher, "nobody@example.com", PASSWORD, gate=gate)

    def join() -> None:
        sign_up(limited, hasher, f"{uuid.uuid4()}@example.com", PASSWORD, gate=gate)

    for _ in range(5):
        with pytest.raises(InvalidCredentials):
            guess()
    for _ in range(2):
        join()
    for ask in (guess, join):
        with pytest.raises(TooManyAttempts) as told:
            ask()
        assert told.value.retry_after > 800
    with gate.bulkhead.place(ELSEWHERE):
        for ask in (guess, join):
            with pytest.raises(TooManyAttempts) as told:
                ask()
            assert 800 < told.value.retry_after <= 900
        with pytest.raises(Overloaded):
            log_in(limited, hasher, user.email, PASSWORD, gate=gate, client=ELSEWHERE)
    assert log_in(limited, hasher, user.email, PASSWORD, gate=gate, client=ELSEWHERE) == user


def test_an_account_that_is_locked_for_who_is_signed_in_locks_no_network(limited: Store) -> None:
    hasher, gate = PasswordHasher(4), make_gate()
    user = sign_up(limited, hasher, "ada@example.com", PASSWORD)
    other = sign_up(limited, hasher, "bob@example.com", PASSWORD)
    for error in (WrongPassword, WrongPassword, WrongPassword, TooManyAttempts):
        with pytest.raises(error):
            accounts_of(limited, hasher, gate).delete(
                session_of(user), password="a wrong guess", client=CLIENT
            )
    assert log_in(limited, hasher, other.email, PASSWORD, gate=gate) == other


def test_over_http_a_flood_from_a_locked_network_asks_the_database_once(
    postgres: Server, database: str
) -> None:
    settings = {"MAX_CLIENT_ATTEMPTS": "3", "MAX_SIGNUPS": "1", "TRUSTED_PROXIES": "1"}
    url = postgres.url(database)
    with (
        running_emulator(DATABASE_URL=url, ADMIN_TOKEN=SECRET, **settings) as emulator,
        emulator.client(headers={"X-Forwarded-For": CLIENT.address}) as client,
    ):
        ada = {"email": "ada@example.com", "password": PASSWORD}
        eve = ada | {"email": "eve@example.com"}
        assert client.post("/api/signup", json=ada).status_code == 201
        for _ in range(3):
            guess = {"email": "nobody@example.com", "password": "wrong"}
            assert client.post("/api/login", json=guess).status_code == 401
        locked = (("/api/login", ada), ("/api/signup", eve))
        for path, body in locked:
            assert client.post(path, json=body).status_code == 429
        before = _statements(client)
        for path, body in locked:
            for _ in range(20):
                response = client.post(path, json=body)
                assert response.status_code == 429
                assert response.json()["code"] == "too_many_attempts"
                assert 800 < int(response.headers["Retry-After"]) <= 900
        # One more may be asked, for a test that takes its time.
        assert _statements(client) - before <= 2
        elsewhere = {"X-Forwarded-For": ELSEWHERE.address}
        assert client.post("/api/login", json=ada, headers=elsewhere).status_code == 200


def _statements(client: httpx.Client) -> float:
    """Count what was counted: the statements with which logins and sign-ups begin."""
    text = client.get("/api/metrics", headers={"Authorization": f"Bearer {SECRET}"}).text
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        for name in ("begin_login", "reserve_sign_up")
        if line.startswith(f'db_client_operation_duration_seconds_count{{statement="{name}"}}')
    )


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
        with monkeypatch.context() as patch, ThreadPoolExecutor(3 * CONCURRENCY) as threads:
            bcrypt_function = getattr(bcrypt, name)
            patch.setattr(bcrypt, name, together)
            for future in [threads.submit(compute) for _ in range(3 * CONCURRENCY)]:
                assert future.result(SECONDS)
    assert max(counts) == CONCURRENCY


def test_a_verification_that_computes_several_hashes_is_not_interrupted_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = PasswordHasher(4)
    start = threading.Barrier(CALLERS, timeout=SECONDS)
    order: list[int] = []
    checkpw = bcrypt.checkpw

    def noting(candidate: bytes, target: bytes) -> bool:
        order.append(threading.get_ident())
        return checkpw(candidate, target)

    def verify() -> bool:
        start.wait()
        return hasher.verify(DECOMPOSED, None)

    monkeypatch.setattr(bcrypt, "checkpw", noting)
    with ThreadPoolExecutor(CALLERS) as threads:
        futures = [threads.submit(verify) for _ in range(CALLERS)]
        assert not any(future.result(SECONDS) for future in futures)
    assert order[::2] == order[1::2]
    assert len(order) == 2 * CALLERS == 2 * len(set(order))


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
    token = SessionTokens(Signing([SECRET])).issue(user, time.time()).text
    settings = {"THREADS": str(THREADS), "HASH_CONCURRENCY": "1", "BCRYPT_ROUNDS": "13"}
    with (
        running_emulator(USERS_FILE=str(tmp_path / "users.json"), **settings) as emulator,
        emulator.client(headers={"Cookie": f"session={token}"}) as client,
        _logins_at_once(emulator) as logins,
    ):
        refused = list(islice(as_completed(logins, SECONDS), THREADS - ROOM))
        assert all(_is_refused(login.result()) for login in refused)
        for path in ("/api/health", "/api/livez", "/api/user"):
            assert client.get(path).status_code == 200
        assert not all(login.done() for login in logins)
        # Who waits is served in time or refused; who had a place at once is served.
        codes = Counter(login.result().status_code for login in logins if login not in refused)
        assert codes[401] + codes[503] == ROOM
        assert codes[401] >= PLACES_PER_HASH


@pytest.mark.tcp("a login waits for a line that is silent while connecting")
def test_over_http_logins_that_wait_for_a_silent_database_keep_no_probe_from_its_answer(
    postgres: Server,
) -> None:
    user = User(id=str(uuid.uuid4()), email="ada@example.com", name=None, provider="local")
    token = SessionTokens(Signing([SECRET])).issue(user, time.time()).text
    places = PLACES_PER_HASH * CONCURRENCY
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
            for number in (THREADS - ROOM, THREADS - places):
                refused = list(islice(as_completed(logins, SECONDS), number))
                assert all(_is_refused(login.result()) for login in refused)
                for path in ("/api/livez", "/api/user"):
                    assert client.get(path).status_code == 200
            waiting = [login for login in logins if not login.done()]
            assert len(waiting) == places
            silent.close()
            codes = [login.result().json()["code"] for login in waiting]
            assert codes == ["store_unavailable"] * places
