"""A proxy that lets nobody out but by CONNECT, and keeps whom it was asked for."""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.serving import serving


class ConnectProxy:
    """It forwards to this machine, whatever host is named; with `password` it asks for that."""

    def __init__(self, password: str = "") -> None:
        self.asked: list[str] = []
        expected = f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:  # http.server's name
                if password and self.headers["Proxy-Authorization"] != expected:
                    self.send_error(407)
                    return
                outer.asked.append(self.path)
                port = int(self.path.rpartition(":")[2])
                with socket.create_connection(("127.0.0.1", port)) as server:
                    self.send_response(200)
                    self.end_headers()
                    _forward(self.connection, server)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[ConnectProxy]:
        """Listen."""
        with serving(self._server):
            yield self


def _forward(one: socket.socket, other: socket.socket) -> None:
    """Forward both ways until one of them ends."""
    peers = {one: other, other: one}
    while True:
        for ready in select.select(list(peers), [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            peers[ready].sendall(data)
