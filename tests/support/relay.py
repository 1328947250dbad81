"""A TCP relay that counts flights, and that can be told to fail as networks and servers do.

A flight is how often the client spoke and had to wait for an answer.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

_TLS_ALERT = 24
"""The bytes of an encrypted TLS 1.3 alert: the server's good-bye, for which nobody waits."""
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_POLL = 0.02
_FINE_POLL = 0.005
"""While something waits for its time to be forwarded."""
_MAX_HELD = 16
"""Chunks that wait for their time, before no more is read."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """What happens to connections, and to what they carry.

    `delay` is in seconds a chunk, and `rate` in bytes a second, both each way. After
    `request_bytes` of the client's, or `answer_bytes` of the server's, a connection is reset;
    they are counted from when the mode was set.
    """

    kind: Literal["forward", "refuse", "hang up", "flap", "black hole", "no TLS"] = "forward"
    delay: float = 0
    rate: float | None = None
    request_bytes: int | None = None
    answer_bytes: int | None = None


FORWARD = Mode()
REFUSE = Mode(kind="refuse")
"""Nobody listens on the port. Open connections stay: `cut` them."""
HANG_UP = Mode(kind="hang up")
"""New connections are closed without a word. Open ones stay."""
FLAP = Mode(kind="flap")
"""The first new connection is closed without a word, the next one forwarded, and so on."""
BLACK_HOLE = Mode(kind="black hole")
"""Connections are accepted and stay open, and nothing comes through, not even their end."""
NO_TLS = Mode(kind="no TLS")
"""New connections reach a server without TLS: it answers "N" to the SSL request."""
TRICKLE = Mode(rate=1)


class _Reset(Exception):
    """The connection is to be reset."""


class Relay:
    """Forwards connections to a port of this machine, and counts what goes through.

    A flight is counted when the server answers what the client said since its last answer: one
    round trip that the client has to wait for. Opening the TCP connection is one, too.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.target = port
        """Where new connections lead."""
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        # It never listens: the port refuses, and nobody else gets it, while no other socket does.
        self._reserved = self._bound(0)
        self.port = int(self._reserved.getsockname()[1])
        self.connections = 0
        self.connect_times: list[float] = []
        """When each of them was accepted, by `time.monotonic`."""
        self.flights = 0
        self.hang_up = 0
        """How many of the next connections to close without a word."""
        self.plaintext = b""
        """What clients said after their SSL request was answered with "N"."""
        self._mode = FORWARD
        self._mode_number = 0
        self._since_mode = 0
        self._cuts = 0
        self._closing = threading.Event()
        self._refusing = threading.Event()
        self._acceptor: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._spawning = threading.Lock()

    def __enter__(self) -> Relay:
        if self._mode.kind != "refuse":
            self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._refuse()
        for thread in self._threads:
            thread.join()
        self._reserved.close()

    @property
    def mode(self) -> Mode:
        """What happens now; a new mode holds at once, for open connections too."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = mode
        self._mode_number += 1
        self._since_mode = 0
        if mode.kind == "refuse":
            self._refuse()
        elif self._acceptor is None:
            self._listen()

    def reset(self) -> None:
        """Start counting anew."""
        self.connections = self.flights = 0
        self.connect_times = []

    def cut(self) -> None:
        """Reset every connection that is open, and wait until that is done."""
        with self._spawning:
            open_now = list(self._threads)
            self._cuts += 1
        for thread in open_now:
            thread.join()

    def _bound(self, port: int) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self._host, port))
        except OSError:
            bound.close()
            raise
        return bound

    def _listen(self) -> None:
        listener = self._bound(self.port)
        listener.listen(128)
        self._refusing.clear()
        self._acceptor = threading.Thread(target=self._accept, args=(listener,))
        self._acceptor.start()

    def _refuse(self) -> None:
        if self._acceptor is not None:
            self._refusing.set()
            self._acceptor.join()
            self._acceptor = None

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._refusing.is_set():
                if select.select([listener], [], [], _POLL)[0]:
                    client, _ = listener.accept()
                    self._admit(client)

    def _admit(self, client: socket.socket) -> None:
        self.connections += 1
        self.connect_times.append(time.monotonic())
        self._since_mode += 1
        kind = self._mode.kind
        if self.hang_up:
            self.hang_up -= 1
            client.close()
        elif kind == "hang up" or (kind == "flap" and self._since_mode % 2):
            client.close()
        else:
            self._spawn(self._refuse_tls if kind == "no TLS" else self._connect, client)

    def _spawn(self, function: Callable[..., None], client: socket.socket) -> None:
        with self._spawning:  # A thread that has not begun cannot be waited for.
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=function, args=(client, self._cuts))
            self._threads.append(thread)
            thread.start()

    def _is_open(self, cuts: int) -> bool:
        """Tell whether a connection that was opened after so many cuts is to go on."""
        if self._cuts > cuts:
            raise _Reset
        return not self._closing.is_set()

    def _refuse_tls(self, client: socket.socket, cuts: int) -> None:
        asked = False
        with client:
            try:
                while self._is_open(cuts):
                    if not select.select([client], [], [], _POLL)[0]:
                        continue
                    data = client.recv(65536)
                    if asked:
                        self.plaintext += data
                    if not data or (not asked and data != _SSL_REQUEST):
                        return
                    if not asked:
                        asked = True
                        client.sendall(b"N")
            except (OSError, _Reset):
                _reset(client)

    def _connect(self, client: socket.socket, cuts: int) -> None:
        self.flights += 1
        try:
            while self._is_open(cuts) and self._mode.kind == "black hole":
                time.sleep(_POLL)
            server = socket.create_connection(("127.0.0.1", self.target))
        except (OSError, _Reset):
            _reset(client)
            return
        with client, server:
            for peer in (client, server):
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._forward(client, server, cuts)
            except (OSError, _Reset):
                _reset(client)
                _reset(server)

    def _forward(self, client: socket.socket, server: socket.socket, cuts: int) -> None:
        """Forward until one side ends. Raises OSError and _Reset where it is to be reset."""
        requests, answers = _Way(client, server), _Way(server, client)
        ways = {client: requests, server: answers}
        client_spoke = False
        while self._is_open(cuts) and not any(way.has_ended for way in ways.values()):
            mode, number = self._mode, self._mode_number
            holds = mode.kind == "black hole"
            read = [] if holds else [source for source, way in ways.items() if way.has_room]
            waits = not holds and any(way.held for way in ways.values())
            ready = select.select(read, [], [], _FINE_POLL if waits else _POLL)[0]
            for source in ready:
                length = ways[source].receive()
                # Counted before the client can read the answer and look at the count.
                if source is server and client_spoke and length not in (0, _TLS_ALERT):
                    self.flights += 1
                client_spoke = source is client
            if not holds:
                requests.forward(mode, number, mode.request_bytes)
                answers.forward(mode, number, mode.answer_bytes)


class _Way:
    """What one side said and the other has yet to hear."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self._source, self._target = source, target
        self.held: deque[tuple[float, bytes]] = deque()
        """Chunks, and when each arrived."""
        self._is_over = False
        self._sent_at = 0.0
        self._mode_number = -1
        self._passed = 0

    @property
    def has_room(self) -> bool:
        """Whether more is to be read."""
        return not self._is_over and len(self.held) < _MAX_HELD

    @property
    def has_ended(self) -> bool:
        """Whether the source has ended, and everything that it said was forwarded."""
        return self._is_over and not self.held

    def receive(self) -> int:
        """Read a chunk and give its length."""
        data = self._source.recv(65536)
        if data:
            self.held.append((time.monotonic(), data))
        else:
            self._is_over = True
        return len(data)

    def forward(self, mode: Mode, number: int, most: int | None) -> None:
        """Send what the mode lets through now. Raises _Reset after `most` bytes of a mode."""
        if self._mode_number != number:
            self._mode_number, self._passed = number, 0
        while data := self._due(mode):
            if most is not None and self._passed + len(data) >= most:
                self._target.sendall(data[: most - self._passed])
                raise _Reset
            self._target.sendall(data)
            self._passed += len(data)

    def _due(self, mode: Mode) -> bytes:
        now = time.monotonic()
        if not self.held or now < self.held[0][0] + mode.delay:
            return b""
        arrived, data = self.held.popleft()
        if mode.rate is None:
            return data
        due = min(int((now - self._sent_at) * mode.rate), max(1, int(mode.rate * _POLL)))
        if due:
            self._sent_at = now
        if data[due:]:
            self.held.appendleft((arrived, data[due:]))
        return data[:due]


def _reset(connection: socket.socket) -> None:
    """Close with RST, so that the peer sees a reset and not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
