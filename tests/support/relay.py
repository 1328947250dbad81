"""A TCP relay that counts flights: how often the client spoke and had to wait for an answer."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType

_TLS_ALERT = 24
"""The bytes of an encrypted TLS 1.3 alert: the server's good-bye, for which nobody waits."""


class Relay:
    """Forwards connections to a port of this machine, and counts what goes through.

    A flight is counted when the server answers what the client said since its last answer: one
    round trip that the client has to wait for. Opening the TCP connection is one, too.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.flights = 0
        self.hang_up = 0
        """How many of the next connections to close without a word."""
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Relay:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def reset(self) -> None:
        """Start counting anew."""
        self.connections = self.flights = 0

    def _spawn(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                self._spawn(self._forward, client)

    def _forward(self, client: socket.socket) -> None:
        self.connections += 1
        if self.hang_up:
            self.hang_up -= 1
            client.close()
            return
        self.flights += 1
        client_spoke = False
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            peers = {client: server, server: client}
            for peer in peers:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._closing.is_set():
                for source in select.select(list(peers), [], [], 0.05)[0]:
                    try:
                        data = source.recv(65536)
                        if not data:
                            return
                        # Counted before the client can read the answer and look at the count.
                        if source is server and client_spoke and len(data) != _TLS_ALERT:
                            self.flights += 1
                        client_spoke = source is client
                        peers[source].sendall(data)
                    except OSError:
                        return
