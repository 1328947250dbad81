"""A server that speaks just enough of PostgreSQL's protocol to lie in it, over TLS.

It stands in for the peers that no honest server can play: a man in the middle with a trusted
certificate, and Neon's proxy in its bad moments.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

import scramp

from shared.database.url import DatabaseUrl
from tests.support.certificates import Authority

READY = b"Z\x00\x00\x00\x05I"


def message(code: bytes, data: bytes = b"") -> bytes:
    """Frame one message of the protocol."""
    return code + struct.pack("!i", len(data) + 4) + data


def authentication(request: int, data: bytes = b"") -> bytes:
    """Frame an authentication request; 0 is "you are in"."""
    return message(b"R", struct.pack("!i", request) + data)


def error(sqlstate: str, text: str) -> bytes:
    """Frame a fatal error."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text}
    return message(b"E", b"".join(f"{k}{v}\0".encode() for k, v in fields.items()) + b"\0")


def log_in(
    tls: ssl.SSLSocket,
    *,
    password: str = "canary",
    iterations: int = 4096,
    mechanisms: bytes = b"SCRAM-SHA-256",
    more: bytes = READY,
) -> None:
    """Let a client in as PostgreSQL does, which proves to it that the password is known.

    `more` follows in the same breath.
    """
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256")
    known = mechanism.make_auth_info(password, iterations)
    server = mechanism.make_server(lambda _: known)
    tls.sendall(authentication(10, mechanisms + b"\0\0"))
    _, _, first = _hear(tls).partition(b"SCRAM-SHA-256\0")
    server.set_client_first(first[4:].decode())
    tls.sendall(authentication(11, server.get_server_first().encode()))
    server.set_client_final(_hear(tls)[5:].decode())
    final = server.get_server_final().encode()
    tls.sendall(authentication(12, final) + authentication(0) + more)


def _hear(tls: ssl.SSLSocket) -> bytes:
    heard = tls.recv(4096)
    if not heard.startswith(b"p"):
        raise ConnectionResetError("the client has gone")
    return heard


class Impostor:
    """Hands each TLS connection to `behave`; `connections` counts them."""

    def __init__(self, authority: Authority, behave: Callable[[ssl.SSLSocket, int], None]) -> None:
        certificate, key = authority.issue("impostor", ("localhost",))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0

    def url(self, authority: Authority, *, bound: bool = False) -> DatabaseUrl:
        """Name it as a database; `bound` requires channel binding."""
        return DatabaseUrl(
            host="localhost",
            port=self.port,
            database="d",
            user="u",
            password="canary",
            require_channel_binding=bound,
            root_certificates=str(authority.certificate),
        )

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with plain:
                plain.settimeout(10)
                try:
                    plain.recv(8)
                    plain.sendall(b"S")
                    with self._context.wrap_socket(plain, server_side=True) as tls:
                        tls.recv(4096)  # The startup message.
                        self._behave(tls, self.connections)
                except OSError:
                    continue
