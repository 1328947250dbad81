"""A man in the middle with the server's own certificate: it sees every message of the protocol.

What goes through can be watched, held back, or cut off between any two messages, so that a fault
comes at a point of the protocol and not at a point in time.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from tests.support.postgres import Server

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_HEAD = struct.Struct("!ci")
_LIMIT = re.compile(r"^SET LOCAL statement_timeout = \d+; ")


@dataclass(frozen=True)
class Message:
    """One message; `kind` is the protocol's letter."""

    sender: Literal["client", "server"]
    kind: str
    body: bytes

    @property
    def sql(self) -> str:
        """The statement of a Query or a Parse, without its time limit, else nothing."""
        if self.sender == "client" and self.kind in "QP":
            sql = self.body.split(b"\0")[
                "QP".index(self.kind)
            ].decode()  # A Parse begins with a name.
            return _LIMIT.sub("", sql)
        return ""

    @property
    def is_commit(self) -> bool:
        """Whether the client asks for the COMMIT."""
        return self.sql == "COMMIT"

    @property
    def is_committed(self) -> bool:
        """Whether the server says that it has committed."""
        return (self.sender, self.kind, self.body) == ("server", "C", b"COMMIT\0")


class Interceptor:
    """Forwards connections to the server; each message goes through `watch` first.

    What `watch` returns true for is not forwarded, and its connection is cut. While it runs, its
    connection stands still. `is_open` is false where new connections are to be hung up on.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._outside.load_cert_chain(server.folder / "server.crt", server.folder / "private.key")
        self._inside = ssl.create_default_context(cafile=str(server.authority.certificate))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.port = int(self._listener.getsockname()[1])
        self.watch: Callable[[Message], object] = lambda _: None
        self.is_open = True

    def url(self, database: str) -> str:
        """Write a connection string that leads through here."""
        return self._server.url(database, port=self.port)

    def __enter__(self) -> Interceptor:
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

    def close_after_commit(self) -> None:
        """Let messages through, and hang up on new connections from the first COMMIT on."""

        def watch(message: Message) -> None:
            if message.is_committed:
                self.is_open = False

        self.watch = watch

    def _spawn(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                if self.is_open:
                    self._spawn(self._serve, client)
                else:
                    client.close()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server.port))
        try:
            for side in (client, server):
                side.settimeout(30)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.recv(8)
            client.sendall(b"S")
            client = self._outside.wrap_socket(client, server_side=True)
            server.sendall(_SSL_REQUEST)
            server.recv(1)
            server = self._inside.wrap_socket(server, server_hostname=self._server.host)
            server.sendall(client.recv(4096))  # The startup message, which has no letter.
            self._forward(client, server)
        except OSError:
            pass
        finally:
            client.close()
            server.close()

    def _forward(self, client: ssl.SSLSocket, server: ssl.SSLSocket) -> None:
        peers = {client: server, server: client}
        buffers = {client: bytearray(), server: bytearray()}
        while not self._closing.is_set():
            ready = [side for side in peers if side.pending()]
            for side in ready or select.select(list(peers), [], [], 0.05)[0]:
                data = side.recv(65536)
                if not data:
                    return
                buffers[side] += data
                for kind, message in _messages(buffers[side]):
                    sender: Literal["client", "server"] = "client" if side is client else "server"
                    if self.watch(Message(sender, kind, message[_HEAD.size :])):
                        return
                    peers[side].sendall(message)


def _messages(buffer: bytearray) -> Iterator[tuple[str, bytes]]:
    """Take the whole messages out of a buffer, each with its letter."""
    while len(buffer) >= _HEAD.size:
        kind, length = _HEAD.unpack_from(buffer)
        if len(buffer) <= length:
            return
        message = bytes(buffer[: length + 1])
        del buffer[: length + 1]
        yield kind.decode(), message
