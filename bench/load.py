"""The load: HTTP/1.1 requests over raw sockets, from one thread, with little overhead.

The bench's process does nothing else while it sends, and the servers are processes of their own,
so one loop over a selector is enough: it takes some 60 µs of CPU a request, where http.client
takes 150 and would need a thread a client.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")

BLOCK = 50
"""Requests to one side per turn."""
CPU_BLOCK = 20
"""The same where each takes a whole hash, so that a turn is a second."""

_TIMEOUT = 60.0


class CannotMeasure(Exception):
    """A precondition of the measurement failed, so that no number would be valid."""


class Answer(NamedTuple):
    """An answer: its status, and the raw head and body."""

    status: int
    head: bytes
    body: bytes

    def check(self, status: int) -> None:
        """Raise CannotMeasure for any other status."""
        if self.status != status:
            text = self.body[:300].decode(errors="replace")
            raise CannotMeasure(f"a server answered {self.status} instead of {status}: {text}")


class Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        """Connect. Raises OSError while nobody listens."""
        self._socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Let a selector watch it."""
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Send the next request, once the answer to the last one was received."""
        self._received = b""
        self._socket.sendall(request)

    def receive(self) -> Answer | None:
        """Read once, and give the answer where that completes it."""
        data = self._socket.recv(65536)
        if not data:
            raise CannotMeasure("a server closed a connection instead of answering")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return None
        return Answer(int(head[9:12]), head, body)

    def exchange(self, request: bytes) -> Answer:
        """Send a request and wait for its answer."""
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its port, its requests, and the expected status."""

    port: int
    request: Callable[[], bytes]
    status: int = 200


def in_turns(rounds: int, *measures: Callable[[], T], warm_up: bool = True) -> list[list[T]]:
    """Measure in turns, and give each one's numbers, one a round.

    Each round begins with another one, so that none is always the one after the pause. A round
    before them only warms up: caches, connections, .pyc files.
    """
    numbers: list[list[T]] = [[] for _ in measures]
    for round_number in range(0 if warm_up else 1, rounds + 1):
        for turn in range(len(measures)):
            index = (round_number + turn) % len(measures)
            number = measures[index]()
            if round_number > 0:
                numbers[index].append(number)
    return numbers


def milliseconds(side: Side, count: int = BLOCK) -> list[float]:
    """Measure a block of requests by one client, on one connection.

    A block has a connection of its own, because gunicorn closes one that is idle for 2 s. The
    first request on it isn't counted.
    """
    with Connection(side.port) as connection:
        return [_timed(connection, side) for _ in range(count + 1)][1:]


def median_milliseconds(side: Side) -> float:
    """Give the median of a block."""
    return statistics.median(milliseconds(side))


def cpu_milliseconds(
    side: Side, processes: Callable[[], Iterable[int]], count: int = CPU_BLOCK
) -> float:
    """Give the CPU time of a request in all these processes together, by one client.

    Who they are is asked before and after, because a server may start some for the first request.
    """
    with Connection(side.port) as connection:
        _timed(connection, side)
        before = _cpu_seconds(processes())
        for _ in range(count):
            _timed(connection, side)
        after = _cpu_seconds(processes())
    return sum(after[it] - before.get(it, 0.0) for it in after) / count * 1000


def answers_per_second(side: Side, clients: int, count: int) -> float:
    """Share `count` requests, at least one each, among clients that wait for one answer at a time.

    The work is fixed rather than the time: at 60 ms a hash, what is half done when a clock stops
    would be several percent of a round.
    """
    unanswered, unsent = count, count - clients
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        connections = [stack.enter_context(Connection(side.port)) for _ in range(clients)]
        started = time.perf_counter()
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
            connection.send(side.request())
        while unanswered:
            events = selector.select(_TIMEOUT)
            if not events:
                raise CannotMeasure("a server doesn't answer")
            for key, _ in events:
                connection = key.data
                answer = connection.receive()
                if answer is None:
                    continue
                answer.check(side.status)
                unanswered -= 1
                if unsent:
                    unsent -= 1
                    connection.send(side.request())
        return count / (time.perf_counter() - started)


def get(path: str, cookie: str = "", bearer: str = "") -> bytes:
    """Write a GET request."""
    headers = {"Cookie": cookie, "Authorization": bearer and f"Bearer {bearer}"}
    return _request("GET", path, {name: text for name, text in headers.items() if text}, b"")


def post(path: str, *, forwarded_for: str = "", **members: str) -> bytes:
    """Write a POST request with a JSON object, as a proxy passes it on where one is named."""
    body = json.dumps(members).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if forwarded_for:
        headers["X-Forwarded-For"] = forwarded_for
    return _request("POST", path, headers, body)


def _request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    common = {"Host": "127.0.0.1", "Accept": "application/json"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (common | headers).items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise CannotMeasure("a server answered without Content-Length")
    return int(rest.partition(b"\r\n")[0])


def _cpu_seconds(processes: Iterable[int]) -> dict[int, float]:
    """Read the CPU clocks of processes (clock_getcpuclockid, which Python lacks) that still are."""
    found = {}
    for process in processes:
        with suppress(OSError):
            found[process] = time.clock_gettime(~process << 3 | 2)
    return found


def _timed(connection: Connection, side: Side) -> float:
    request = side.request()
    started = time.perf_counter()
    answer = connection.exchange(request)
    milliseconds = (time.perf_counter() - started) * 1000
    answer.check(side.status)
    return milliseconds
