"""A web server before the emulator that passes everything on, and spoils chosen answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.support.emulator import NO_TLS
from tests.support.serving import serving

Spoiled = dict[tuple[str, str], int | None]
"""A status by method and path; None closes the connection after the request was served."""


@contextmanager
def spoiling(url: str, spoiled: Spoiled, *, times: int = 1000, delay: float = 0) -> Iterator[str]:
    """Give the URL of a server before `url` that spoils the first `times` answers to those.

    `delay` is in seconds, before each of them.
    """
    left = dict.fromkeys(spoiled, times)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            key = (self.command, self.path)
            answer = httpx.request(
                self.command, url + self.path, content=self.rfile.read(length),
                trust_env=False, verify=NO_TLS,
                headers={k: v for k, v in self.headers.items() if k in ("Content-Type", "Cookie")},
            )  # fmt: skip
            status: int | None = answer.status_code
            if left.get(key, 0) > 0:
                left[key] -= 1
                time.sleep(delay)
                status = spoiled[key]
            if status is None:
                return
            self.send_response(status)
            for name, value in answer.headers.multi_items():
                if name == "set-cookie":
                    self.send_header(name, value)
            content = answer.content
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815  # the names that the library calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"
