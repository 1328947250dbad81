"""Guessing passwords over HTTP: what is counted holds for all processes and tells nobody."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.application import open_store
from shared.credentials.passwords import PasswordHasher
from shared.errors import StoreUnreachable, TooManyAttempts
from shared.model.throttling import Keys, Pseudonyms
from shared.model.users import ExternalIdentity, User
from shared.rules import locks as locks_module
from shared.rules.locks import ASK_AGAIN_SECONDS, Locks
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.in_process import served
from tests.support.postgres import Server

PASSWORD = "correct horse battery staple"
ADA = {"email": "ada@example.com", "password": PASSWORD}
WRONG = ADA | {"password": "a wrong guess"}
SOURCE = f"{ROOT}/tests/support/counted_hashes.py"
HOME, ELSEWHERE, STRANGER = "203.0.113.7", "198.51.100.9", "192.0.2.66"
GUESSES = 200


class Counted:
    """Emulators on one store that count their hashes."""

    def __init__(self, hashes: Path, settings: dict[str, str], stack: ExitStack) -> None:
        self._hashes, self._settings, self._stack = hashes, settings, stack

    def start(self, **settings: str) -> Emulator:
        """Start one more process."""
        limits = {
            "MAX_LOGIN_ATTEMPTS": "5",
            "MAX_ACCOUNT_ATTEMPTS": "20",
            "TRUSTED_PROXIES": "1",
            "HASH_CONCURRENCY": "64",
            "TEST_HASHES": str(self._hashes),
        }
        return self._stack.enter_context(
            running_emulator(source=SOURCE, **(limits | self._settings | settings))
        )

    def hashes(self) -> Counter[str]:
        """Count what was computed since the last time."""
        found = Counter(self._hashes.read_text().split() if self._hashes.exists() else [])
        self._hashes.write_text("")
        return found


@pytest.fixture
def counted(tmp_path: Path, store_settings: dict[str, str]) -> Iterator[Counted]:
    """Processes on an empty store of each kind in turn."""
    with ExitStack() as stack:
        yield Counted(tmp_path / "hashes", store_settings, stack)


@pytest.fixture
def opened(store_settings: dict[str, str]) -> Iterator[Store]:
    """The same store, opened here."""
    store = open_store(Settings.from_env({"SESSION_SECRET": "x" * 32} | store_settings))
    yield store
    store.close()


def _post(client: httpx.Client, body: dict[str, str], network: str = HOME) -> httpx.Response:
    return client.post("/api/login", json=body, headers={"X-Forwarded-For": network})


def _guess(emulators: list[Emulator], network: Callable[[int], str]) -> Counter[int]:
    """Guess from many threads at once, at each process in turn."""

    def guess(number: int) -> int:
        with emulators[number % len(emulators)].client() as client:
            return _post(client, WRONG, network(number)).status_code

    with ThreadPoolExecutor(40) as threads:
        return Counter(threads.map(guess, range(GUESSES)))


def test_of_many_guesses_at_once_no_more_than_the_limit_are_compared(counted: Counted) -> None:
    processes = 4 if "DATABASE_URL" in counted._settings else 1
    emulators = [counted.start() for _ in range(processes)]
    with emulators[0].client() as client:
        assert client.post("/api/signup", json=ADA).status_code == 201
        assert _post(client, ADA, HOME).status_code == 200
        counted.hashes()
        assert _guess(emulators, lambda _: STRANGER) == {401: GUESSES}
        assert counted.hashes() == {"real": 5, "dummy": GUESSES - 5}
        assert _post(client, ADA, STRANGER).status_code == 401
        assert _post(client, ADA, ELSEWHERE).status_code == 200
        counted.hashes()
        outcomes = _guess(emulators, lambda number: f"192.0.2.{number}")
        assert outcomes == {401: GUESSES}
        assert counted.hashes()["real"] == 20
        assert _post(client, ADA, "100.64.0.1").status_code == 401
        assert _post(client, ADA, HOME).status_code == 200
    if processes > 1:
        with counted.start().client() as client:
            assert _post(client, ADA, STRANGER).status_code == 401


def test_a_network_that_guesses_too_often_is_told_so_before_anything_is_computed(
    counted: Counted,
) -> None:
    with counted.start(MAX_CLIENT_ATTEMPTS="3", LOCKOUT_TIME="60000").client() as client:
        for number in range(3):
            body = {"email": f"user{number}@example.com", "password": "x"}
            assert _post(client, body).status_code == 401
        counted.hashes()
        response = _post(client, ADA)
        assert response.status_code == 429
        assert response.json()["code"] == "too_many_attempts"
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert not counted.hashes()
        assert _post(client, ADA, ELSEWHERE).status_code == 401


def test_sign_ups_of_one_network_are_bounded_and_nothing_is_computed_for_more(
    counted: Counted,
) -> None:
    with counted.start(MAX_SIGNUPS="2").client() as client:
        for number, status in enumerate((201, 201, 429)):
            body = {"email": f"user{number}@example.com", "password": PASSWORD}
            headers = {"X-Forwarded-For": HOME}
            assert client.post("/api/signup", json=body, headers=headers).status_code == status
        assert counted.hashes() == {"new": 2}


def test_too_many_right_logins_are_told_so_and_wrong_ones_answered_as_ever(
    counted: Counted,
) -> None:
    with counted.start(MAX_LOGINS="3", LOCKOUT_TIME="60000").client() as client:
        client.post("/api/signup", json=ADA)
        before = _post(client, WRONG)
        for number in range(3):
            assert _post(client, ADA, f"192.0.2.{number}").status_code == 200
        refused = _post(client, ADA, ELSEWHERE)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_attempts")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        sentence = r"Too many attempts\. Please try again in \d+ seconds?\."
        assert re.fullmatch(sentence, refused.json()["error"])
        assert "set-cookie" not in refused.headers
        counted.hashes()
        after = _post(client, WRONG)
        assert counted.hashes() == {"real": 1}
        assert _without_id(after) == _without_id(before)


def test_too_many_successes_of_an_account_lock_no_network(counted: Counted) -> None:
    eve = ADA | {"email": "eve@example.com"}
    limits = {"MAX_LOGINS": "2", "LOCKOUT_TIME": "60000"}
    with counted.start(**limits).client(headers={"X-Forwarded-For": HOME}) as client:
        client.post("/api/signup", json=eve)
        client.post("/api/signup", json=ADA)
        change = {"currentPassword": PASSWORD, "newPassword": "another long passphrase"}
        calls: list[Callable[[], httpx.Response]] = [
            lambda: _post(client, ADA),
            lambda: client.post("/api/password", json=change),
            lambda: client.request("DELETE", "/api/account", json={"password": PASSWORD}),
        ]
        assert [_post(client, ADA).status_code for _ in range(2)] == [200] * 2
        for call in calls:
            for _ in range(2):
                counted.hashes()
                assert call().status_code == 429
                assert counted.hashes()["real"] == 1, "the password is asked first"
            assert _post(client, WRONG).status_code == 401
        assert _post(client, eve).status_code == 200
        assert client.post("/api/password", json=change).status_code == 200
        assert client.post("/api/signup", json=ADA | {"email": "bob@x.org"}).status_code == 201


def _without_id(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.text.replace(response.json()["request_id"], "")


def _accounts(store: Store) -> dict[str, dict[str, str]]:
    """Make every kind of account that a login must answer alike; give each one's login."""
    strong = PasswordHasher(4).hash(PASSWORD)
    hashes: dict[str, Any] = {
        "wrong": strong,
        "google": None,
        "throttled": strong,
        "corrupt": "$2b$04$corrupt",
        "foreign": "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA",
        "costly": strong.replace("$04$", "$31$"),
        "malformed": f"$2b$04${'/' * 21}a{'/' * 31}",
    }
    for name, password in hashes.items():
        google = [ExternalIdentity("https://accounts.google.com", name)] if name == "google" else []
        user = User(str(uuid.uuid4()), f"{name}@example.com", None, "local")
        store.create_user(user, password, google)
    return {
        name: {"email": f"{name}@example.com", "password": "a wrong guess"}
        for name in (*hashes, "unknown")
    }


def test_every_login_that_fails_gets_one_answer_after_one_amount_of_work(
    counted: Counted, opened: Store
) -> None:
    logins = _accounts(opened)
    with counted.start().client() as client:
        throttled = {"email": "throttled@example.com", "password": "a wrong guess"}
        for _ in range(5):
            _post(client, throttled)
        counted.hashes()
        answers = {}
        for name, login in logins.items():
            for body in (login, login | {"password": PASSWORD}):
                if (name, body["password"]) == ("wrong", PASSWORD):
                    continue
                response = _post(client, body)
                assert response.status_code == 401
                problem = response.json()
                text = response.text.replace(problem.pop("request_id"), "")
                headers = {
                    key: value
                    for key, value in response.headers.items()
                    if key not in ("date", "x-request-id")
                }
                work = sum(counted.hashes().values())
                answers[name, body["password"]] = (text, json.dumps(headers), work)
    assert len(set(answers.values())) == 1, answers
    ((text, _, _),) = set(answers.values())
    assert "If you have tried several times, wait 15 minutes." in text


@pytest.mark.parametrize(
    ("lockout_time", "wait"),
    [
        ("1000", "1 second"),
        ("1500", "2 seconds"),
        ("90000", "90 seconds"),
        ("600001", "11 minutes"),
        ("3600000", "60 minutes"),
        ("86400000", "24 hours"),
    ],
)
def test_who_fails_is_told_to_wait_as_long_as_a_lock_lasts(
    tmp_path: Path, lockout_time: str, wait: str
) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "LOCKOUT_TIME": lockout_time}
    with served(**settings) as app:
        answer = app.post("/api/login", WRONG)
    assert answer.json is not None
    assert answer.json["error"].endswith(f"several times, wait {wait}.")


def test_addresses_that_are_nobodys_share_a_fixed_number_of_keys() -> None:
    pseudonyms = Pseudonyms(["x" * 32])
    keys = [
        Keys.of(pseudonyms.of(f"user{number}@example.com"), pseudonyms.of(f"network {number}"))
        for number in range(20_000)
    ]
    assert len({key.nobodys_account for key in keys}) <= 4096
    assert len({key.nobodys_login for key in keys}) <= 4096
    assert len({key.account for key in keys}) == len({key.login for key in keys}) == len(keys)


def test_the_database_keeps_neither_addresses_nor_networks_of_those_who_try(
    postgres: Server, database: str
) -> None:
    with (
        running_emulator(DATABASE_URL=postgres.url(database), TRUSTED_PROXIES="1") as emulator,
        emulator.client() as client,
    ):
        client.post("/api/signup", json=ADA, headers={"X-Forwarded-For": HOME})
        for email in ("ada@example.com", "canary@example.org"):
            _post(client, {"email": email, "password": "x"}, STRANGER)
    rows = postgres.run("SELECT key FROM auth_attempts", database)
    rows += postgres.run("SELECT kind, actor, client FROM auth_events", database)
    assert len(rows) >= 8
    for secret in ("ada", "canary", "example", HOME, STRANGER):
        assert secret not in str(rows)


class Clock:
    """A monotonic clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _learn(locks: Locks, network: str, seconds: float | None) -> None:
    """Have the store say that the network is locked for so long, or that it is not."""
    with suppress(TooManyAttempts), locks.learning(network):
        if seconds is not None:
            raise TooManyAttempts(seconds)


def _refused_for(locks: Locks, network: str) -> int:
    """Tell for how many seconds nobody is let through to the store; 0 if somebody is, now."""
    try:
        locks.check(network, event="login_throttled")
    except TooManyAttempts as error:
        return error.retry_after
    return 0


def test_a_locked_network_is_remembered_and_no_other() -> None:
    clock = Clock()
    locks = Locks(clock)
    assert _refused_for(locks, HOME) == 0
    _learn(locks, HOME, 900)
    assert [_refused_for(locks, network) for network in (HOME, ELSEWHERE)] == [900, 0]
    clock.now += ASK_AGAIN_SECONDS - 1
    assert _refused_for(locks, HOME) == 900 - ASK_AGAIN_SECONDS + 1


def test_one_caller_at_a_time_asks_the_store_again_whether_a_lock_still_stands() -> None:
    clock = Clock()
    locks = Locks(clock)
    _learn(locks, HOME, 900)
    clock.now += ASK_AGAIN_SECONDS
    assert _refused_for(locks, HOME) == 0
    assert [_refused_for(locks, HOME) for _ in range(3)] == [890] * 3
    _learn(locks, HOME, None)  # An operator has deleted it.
    assert [_refused_for(locks, HOME) for _ in range(3)] == [0] * 3


def test_a_lock_that_the_store_could_not_be_asked_about_is_remembered_for_as_long_as_before() -> (
    None
):
    clock = Clock()
    locks = Locks(clock)
    _learn(locks, HOME, 15)
    clock.now += ASK_AGAIN_SECONDS
    locks.check(HOME, event="login_throttled")
    with pytest.raises(StoreUnreachable), locks.learning(HOME):
        raise StoreUnreachable
    assert _refused_for(locks, HOME) == 5
    clock.now += 5
    assert [_refused_for(locks, HOME) for _ in range(3)] == [0] * 3


def test_a_lock_is_remembered_no_longer_than_the_store_said() -> None:
    clock = Clock()
    locks = Locks(clock)
    _learn(locks, HOME, 4)
    clock.now += 4
    assert [_refused_for(locks, HOME) for _ in range(3)] == [0] * 3


def test_only_so_many_locks_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks_module, "MAX_LOCKS", 2)
    locks = Locks(Clock())
    for network in (HOME, ELSEWHERE, HOME, STRANGER):
        _learn(locks, network, 900)
    assert [_refused_for(locks, network) for network in (HOME, ELSEWHERE, STRANGER)] == [
        900,
        0,
        900,
    ]
