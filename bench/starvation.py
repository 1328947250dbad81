"""The effect of hostile connections: logins and answers that still succeed.

The settings are those of `make deploy`. Hostile connections stay open and send the next wrong
password as soon as they have their answer; half of the addresses are somebody's. Several networks
are in as many regions. One login a second has a right password and a network of its own.
"""

from __future__ import annotations

import heapq
import itertools
import re
import selectors
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.load import CannotMeasure, Connection, get, post
from bench.report import Measurement
from bench.servers import PASSWORD, Running, ours, running
from deploy.services import API, Place, settings
from shared.model.throttling import Limits

ROUNDS = 12
PATIENCE = 3.0
"""Seconds within which a login is a success."""
PROBE_PAUSE = 0.5
GUESSED = 10
"""Accounts whose passwords are guessed."""
_TIMEOUT = 60.0
_HOSTILE = "hostile"
_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Scenario:
    name: str
    connections: int
    networks: int
    is_locked: bool = False
    """Whether the network has no attempt left when it begins."""
    at_least: float = 0.95


SCENARIOS = (
    _Scenario("nobody hostile", 0, 0),
    _Scenario("12 connections of one network", 12, 1),
    _Scenario("12 connections of twelve networks", 12, 12, at_least=0.8),
    _Scenario("16 connections that get 429", 16, 1, is_locked=True),
)


@dataclass(slots=True)
class _Seen:
    """Statuses and seconds, by what was asked."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, status: int, seconds: float) -> None:
        self.statuses.setdefault(name, Counter())[status] += 1
        self.seconds.setdefault(name, []).append(seconds if status == 200 else float("inf"))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request on its way."""

    name: str
    connection: Connection
    requests: Iterator[bytes]
    sent_at: float


def measure(database_url: str, seconds: int) -> list[Measurement]:
    """Run every scenario for as many seconds, on one server."""
    deployed = settings(API, Place(project="bench", region="bench"), {})
    told = {name: deployed[name] for name in ("THREADS", "HASH_CONCURRENCY", "TRUSTED_PROXIES")}
    limits = {
        "MAX_LOGIN_ATTEMPTS": _LIMITS.login,
        "MAX_ACCOUNT_ATTEMPTS": _LIMITS.account,
        "MAX_CLIENT_ATTEMPTS": _LIMITS.client,
        "MAX_SIGNUPS": _LIMITS.sign_up,
    }
    told |= {name: str(limit) for name, limit in limits.items()}
    program = ours(database_url, ROUNDS, **told, FALLBACK="off")
    measurements = []
    with running(program) as (server,):
        users = [f"owner{number}@example.com" for number in range(seconds)]
        for number, user in enumerate(users):
            _exchange(server, _sign_up(user, _home(number)), 201)
        for number in range(GUESSED):
            _exchange(server, _sign_up(f"guessed{number}@example.com", _home(number)), 201)
        cookie = _session_cookie(server, users[0])
        for index, scenario in enumerate(SCENARIOS):
            networks = [f"203.{number}.{index}.7" for number in range(scenario.networks)]
            if scenario.is_locked:
                _lock(server, networks[0])
            run = _Run(server.port)
            for number, user in enumerate(users):
                run.plan(number + 0.5, "login", _login(user, PASSWORD, _home(number)))
            for number in range(int(seconds / PROBE_PAUSE)):
                for path in ("/api/livez", "/api/user"):
                    run.plan(number * PROBE_PAUSE, path, get(path, cookie=cookie))
            for number in range(scenario.connections):
                run.attack(_guesses(networks[number % len(networks)], number))
            run.finish()
            measurements.append(_measurement(scenario, run.seen, seconds))
    return measurements


def _measurement(scenario: _Scenario, seen: _Seen, seconds: int) -> Measurement:
    """Count what succeeded, and say of the rest what it was told."""
    logins = seen.seconds["login"]
    done = sorted(time for time in logins if time <= PATIENCE)
    lines = [f"Beside {scenario.name}: "]
    if done:
        lines.append(f"logins took {statistics.median(done):.2f} s, at most {done[-1]:.2f} s; ")
    for name in ("/api/livez", "/api/user"):
        slowest = max(seen.seconds[name])
        answered = seen.statuses[name][200]
        total = seen.statuses[name].total()
        lines.append(f"{name} {answered} of {total}, at most {slowest:.2f} s; ")
    for name in ("login", _HOSTILE):
        told = sorted(seen.statuses.get(name, Counter()).items())
        lines.append(f"{name} " + (", ".join(f"{n} of {status}" for status, n in told) or "none"))
        lines.append("; " if name == "login" else ".")
    return Measurement(
        name=f"logins within {PATIENCE:g} s, of {seconds}, beside {scenario.name}",
        unit="",
        ours=[len(done)],
        at_least=scenario.at_least * seconds,
        note="".join(lines),
    )


class _Run:
    """The requests of one scenario: those that are due at a time, and hostile ones all the time."""

    def __init__(self, port: int) -> None:
        self.seen = _Seen()
        self._port = port
        self._due: list[tuple[float, str, bytes]] = []
        self._selector = selectors.DefaultSelector()

    def plan(self, seconds: float, name: str, request: bytes) -> None:
        """Ask something so many seconds after the beginning."""
        heapq.heappush(self._due, (seconds, name, request))

    def attack(self, guesses: Iterator[bytes]) -> None:
        """Open a hostile connection, which sends as soon as it is answered."""
        self._send(_HOSTILE, Connection(self._port), guesses)

    def finish(self) -> None:
        """Ask all that is planned, and wait for the last answer."""
        started, unanswered = time.perf_counter(), len(self._due)
        while unanswered:
            elapsed = time.perf_counter() - started
            while self._due and self._due[0][0] <= elapsed:
                _, name, request = heapq.heappop(self._due)
                self._send(name, Connection(self._port), iter([request]))
            pause = self._due[0][0] - elapsed if self._due else _TIMEOUT
            for key, _ in self._selector.select(max(pause, 0)):
                unanswered -= self._receive(key.data)
        for key in list(self._selector.get_map().values()):
            key.data.connection.__exit__()
        self._selector.close()

    def _send(self, name: str, connection: Connection, requests: Iterator[bytes]) -> None:
        asked = _Asked(name, connection, requests, time.perf_counter())
        connection.send(next(requests))
        self._selector.register(connection, selectors.EVENT_READ, asked)

    def _receive(self, asked: _Asked) -> bool:
        """Read; tell whether that answers something that was planned."""
        is_hostile, connection = asked.name == _HOSTILE, asked.connection
        try:
            answer = connection.receive()
        except (CannotMeasure, OSError):
            if not is_hostile:
                raise
            self._close(connection)
            self._send(_HOSTILE, Connection(self._port), asked.requests)
            return False
        if answer is None:
            return False
        self.seen.add(asked.name, answer.status, time.perf_counter() - asked.sent_at)
        if not is_hostile:
            self._close(connection)
            return True
        self._selector.unregister(connection)
        self._send(_HOSTILE, connection, asked.requests)
        return False

    def _close(self, connection: Connection) -> None:
        self._selector.unregister(connection)
        connection.__exit__()


def _guesses(network: str, seed: int) -> Iterator[bytes]:
    """Guess the passwords of accounts that there are, and of some that there are not."""
    for number in itertools.count(seed):
        user = f"guessed{number % GUESSED}" if number % 2 else f"nobody{number}"
        yield _login(f"{user}@example.com", f"wrong {number}", network)


def _lock(server: Running, network: str) -> None:
    guesses = _guesses(network, 0)
    with Connection(server.port) as connection:
        # What the connections before have sent may still be served.
        while (answer := connection.exchange(next(guesses))).status in (401, 503):
            pass
    answer.check(429)


def _home(number: int) -> str:
    return f"100.64.{number}.7"


def _login(email: str, password: str, network: str) -> bytes:
    return post("/api/login", forwarded_for=network, email=email, password=password)


def _sign_up(email: str, network: str) -> bytes:
    return post("/api/signup", forwarded_for=network, email=email, password=PASSWORD)


def _exchange(server: Running, request: bytes, status: int) -> bytes:
    with Connection(server.port) as connection:
        answer = connection.exchange(request)
    answer.check(status)
    return answer.head


def _session_cookie(server: Running, user: str) -> str:
    head = _exchange(server, _login(user, PASSWORD, _home(0)), 200)
    cookie = re.search(rb"\r\nset-cookie: *([^;\r]+)", head, re.IGNORECASE)
    if cookie is None:
        raise CannotMeasure("a login set no cookie")
    return cookie[1].decode()
