"""Somebody who is told of alerts, over real HTTPS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.certificates import Authority
from tests.support.serving import serving

SECRET = "d2ViaG9vaw"


class Webhook:
    """It keeps what it was told; `status` is what it answers, when `is_answering`."""

    def __init__(self, folder: Path) -> None:
        self.told: list[dict[str, str]] = []
        self.status = 200
        self.is_answering = threading.Event()
        self.is_answering.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == f"/hook?key={SECRET}"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.told.append(json.loads(body))
                outer.is_answering.wait()
                self.send_response(outer.status)
                self.send_header("Location", outer.url)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        authority = Authority(folder)
        self.certificate = str(authority.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("webhook", ("localhost",)))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}/hook?key={SECRET}"

    @contextmanager
    def running(self) -> Iterator[Webhook]:
        """Listen."""
        with serving(self._server):
            yield self

    def states(self) -> list[tuple[str, str]]:
        """Give which alert took which state, in the order of being told."""
        return [(told["alert"], told["state"]) for told in self.told]
