"""The cost of an outage: a worker without its database, in turns with one that has it.

Gone is the worst that a network does: connections are accepted, and nothing comes back. Those of
the outage stay so after it, as where a firewall has forgotten them.
"""

from __future__ import annotations

import random
import re
import socket
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from bench.load import CannotMeasure, Connection, Side, get, in_turns, milliseconds, post
from bench.report import Measurement
from bench.servers import PASSWORD, ours, running
from tests.support.postgres import USER, Server
from tests.support.relay import Relay

CONNECT_SECONDS = 2.0
DEADLINES = {
    "DATABASE_TIMEOUT": "3",
    "DATABASE_CONNECT_TIMEOUT": str(CONNECT_SECONDS),
    "DATABASE_STATEMENT_TIMEOUT": "1",
}
REQUESTS = 300
"""In one turn of one side: enough for a 99th percentile."""
CLIENTS = 6
"""Concurrent clients at the start of an outage: more than there are connections."""
_POLL_SECONDS = 0.02
_MAX_SECONDS = 30.0

_LOGIN = post("/api/login", email="ada@example.com", password=PASSWORD)
_LIVEZ = get("/api/livez")


def measure(server: Server, rounds: int, outages: int) -> list[Measurement]:
    """Compare answers that need no database, and time a number of outages."""
    server.run(f"CREATE DATABASE outages OWNER {USER}")
    with ExitStack() as stack:
        relay = stack.enter_context(Relay(server.port))
        # At cost 10, so that a refusal that computed a hash would show.
        programs = [
            ours(server.url("outages", port=port), 10, **DEADLINES)
            for port in (server.port, relay.port)
        ]
        has_it, lost_it = stack.enter_context(running(*programs))
        cookie = _sign_up(has_it.port)
        gone = _Outages(server, relay, lost_it.port)
        for _ in range(outages):
            gone.run()
        with gone:
            gone.wait_for(503)
            fresh = get("/api/user", cookie=cookie)
            return [
                *_compared("/api/user, fresh", fresh, has_it.port, lost_it.port, rounds),
                *_compared("/api/livez", _LIVEZ, has_it.port, lost_it.port, rounds),
                _refused(lost_it.port, rounds),
                *gone.measurements(),
            ]


class _Outages:
    """The connection of a worker to its database, cut inside the block."""

    def __init__(self, server: Server, relay: Relay, port: int) -> None:
        self._server, self._relay, self._port = server, relay, port
        self._nowhere = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._first: list[float] = []
        self._back: list[float] = []
        self._connects: list[float] = []

    def __enter__(self) -> None:
        self._relay.target = self._nowhere.getsockname()[1]
        self._relay.cut()

    def __exit__(self, *_: object) -> None:
        self._relay.target = self._server.port

    def run(self) -> None:
        """Run one outage under continuous requests."""
        self.wait_for(200)
        self._relay.reset()
        with self, ThreadPoolExecutor(CLIENTS) as clients:
            self._first.append(max(clients.map(self._ask, [503] * CLIENTS)))
            end = time.monotonic() + random.uniform(2, 6)  # noqa: S311  # where the prober is
            while time.monotonic() < end:
                self._ask(503)
                time.sleep(_POLL_SECONDS)
        ended = time.perf_counter()
        self._connects.append(_most_in_a_second(self._relay.connect_times))
        self.wait_for(200)
        self._back.append(time.perf_counter() - ended)

    def measurements(self) -> list[Measurement]:
        """Give the measurements of all outages."""
        return [
            Measurement(
                name=f"slowest of {CLIENTS} logins that find the database gone",
                unit="s",
                ours=self._first,
                at_most=CONNECT_SECONDS + 0.5,
                note=f"DATABASE_CONNECT_TIMEOUT was {CONNECT_SECONDS:g} s; the slowest of "
                f"{len(self._first)} outages took {max(self._first):.2f} s.",
            ),
            Measurement(
                name="end of the outage to the first login",
                unit="s",
                ours=self._back,
                at_most=5,
                note=f"The slowest recovery took {max(self._back):.2f} s.",
            ),
            Measurement(
                name="most connects within a second of it", unit="", ours=self._connects, at_most=5
            ),
        ]

    def wait_for(self, status: int) -> None:
        """Log in until the answer has a status."""
        deadline = time.monotonic() + _MAX_SECONDS
        while self._status() != status:
            if time.monotonic() > deadline:
                raise CannotMeasure(f"no login was answered {status} in {_MAX_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)

    def _status(self) -> int:
        with Connection(self._port) as connection:
            return connection.exchange(_LOGIN).status

    def _ask(self, status: int) -> float:
        """Log in, and give the duration in seconds."""
        started = time.perf_counter()
        with Connection(self._port) as connection:
            connection.exchange(_LOGIN).check(status)
        return time.perf_counter() - started


def _compared(
    name: str, request: bytes, has_it: int, lost_it: int, rounds: int
) -> list[Measurement]:
    """Compare percentiles of what is to take its usual time."""
    sides = [Side(port, lambda: request) for port in (has_it, lost_it)]
    usual, gone = in_turns(rounds, *(partial(milliseconds, side, REQUESTS) for side in sides))
    return [
        Measurement(
            name=f"{name}: database gone / there, median",
            unit="ms",
            floor=[statistics.median(times) for times in usual],
            ours=[statistics.median(times) for times in gone],
            comparison="ratio",
            at_most=1.2,
        ),
        Measurement(
            name=f"{name}: database gone / there, 99th percentile",
            unit="ms",
            floor=[_percentile_99(times) for times in usual],
            ours=[_percentile_99(times) for times in gone],
            comparison="ratio",
        ),
    ]


def _refused(port: int, rounds: int) -> Measurement:
    side = Side(port, lambda: _LOGIN, 503)
    (times,) = in_turns(rounds, partial(milliseconds, side, REQUESTS))
    median = statistics.median(statistics.median(block) for block in times)
    return Measurement(
        name="refused login, 99th percentile",
        unit="ms",
        ours=[_percentile_99(block) for block in times],
        at_most=50,
        note=f"The median of a refused login is {median:.2f} ms.",
    )


def _percentile_99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def _most_in_a_second(times: Sequence[float]) -> int:
    return max(sum(1 for other in times if 0 <= other - first < 1) for first in times)


def _sign_up(port: int) -> str:
    """Make the user, and give a fresh session's cookie."""
    with Connection(port) as connection:
        answer = connection.exchange(
            post("/api/signup", email="ada@example.com", password=PASSWORD)
        )
    answer.check(201)
    cookie = re.search(rb"\r\nset-cookie: *([^;\r]+)", answer.head, re.IGNORECASE)
    if cookie is None:
        raise CannotMeasure("a sign-up set no cookie")
    return cookie[1].decode()
