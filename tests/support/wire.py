"""Raw connections: requests byte by byte, and answers as they come."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.emulator import Emulator, running_emulator
from tests.support.waiting import until

JSON = {"Content-Type": "application/json"}
LIMIT = 16 * 1024
"""Bytes that a body may have."""
PASSWORD = "correct horse battery staple"
LIVEZ = b"GET /api/livez HTTP/1.1\r\nHost: x\r\n\r\n"
TOKEN = "QWRtaW4gb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBhdCBhbGw"
"""Of an administrator."""
THREADS = 8
SECONDS = 0.1
"""Between two bytes of a client that drips."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, whole."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes

    def problem(self) -> Any:
        """Read the body as a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


class Wire:
    """A client's connection."""

    def __init__(self, emulator: Emulator, *, receive_buffer: int = 0, seconds: float = 30) -> None:
        """Connect; `receive_buffer` is what the client's kernel takes of answers unread."""
        host, port = emulator.url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(seconds)
        self.socket.connect((host, int(port)))
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send, and tell whether the server still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def answer(self) -> Answer:
        """Wait for the next answer. Raises EOFError where the server has closed instead."""
        head, body = self._until(b"\r\n\r\n").split(b"\r\n\r\n", 1)
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v for n, v in (field.split(": ", 1) for field in fields)}
        status = int(line.split()[1])
        length = int(headers.get("content-length", 0)) if status >= 200 else 0
        while len(body) < length:
            body += self._more()
        self._received = body[length:]
        return Answer(status, headers, body[:length])

    def until(self, text: bytes) -> bytes:
        """Wait for a text, and give all that has come."""
        self._until(text)
        return self._received

    def is_closed(self) -> bool:
        """Wait for the server to close, and tell whether it did so without another byte."""
        with suppress(ConnectionError):
            return not self._received and not self.socket.recv(65536)
        return True

    def _until(self, text: bytes) -> bytes:
        while text not in self._received:
            self._received += self._more()
        return self._received

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self._received)
        return data


def filled(size: int) -> bytes:
    """Give a login of so many bytes."""
    frame = b'{"email": "a@example.com", "password": ""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


def exchange(emulator: Emulator, request: bytes) -> bytes:
    """Send bytes as they are, and give the first bytes of the answer."""
    host, port = emulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def post(path: str, *fields: bytes) -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n" % path.encode()
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def stream(*fields: bytes, token: str = TOKEN) -> bytes:
    """Give the head of a streamed request."""
    bearer = b"Authorization: Bearer " + token.encode()
    return post("/api/digest", bearer, b"Content-Type: application/x-ndjson", *fields)


def server(folder: Path, target: str = "api", **more: str) -> AbstractContextManager[Emulator]:
    """Start a server with a few threads."""
    settings = {"THREADS": str(THREADS), "USERS_FILE": str(folder / "users.json")}
    return running_emulator(target, **settings | more)


@contextmanager
def dripping(wires: list[Wire]) -> Iterator[None]:
    """Send a byte on each connection, again and again."""
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(SECONDS):
            for wire in wires:
                wire.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def everybody_is_answered(emulator: Emulator, rounds: int = 3) -> None:
    """See that probes and logins are served, each on a connection of its own."""
    for _ in range(rounds):
        with emulator.client(timeout=10) as client:
            assert client.get("/api/livez").status_code == 200
            credentials = {"email": "ada@example.com", "password": PASSWORD}
            assert client.post("/api/login", json=credentials).status_code == 401


def line_of(emulator: Emulator, request_id: str) -> dict[str, Any]:
    """Wait for the request's line in the log."""
    (line,) = until(lambda: [x for x in emulator.log() if x.get("request_id") == request_id])
    return line
