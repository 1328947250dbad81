"""The functions under the real functions-framework, but in this process: fast, without a socket."""

from __future__ import annotations

import io
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

import functions_framework
import pg8000.native
from flask import Flask
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

from shared.application import Application
from shared.settings import Settings
from shared.store.contract import Store
from tests.support.emulator import ROOT, environment

Headers = Iterable[tuple[str, str]]

_ROWS = "(SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t::text), '[]') FROM {0} t)"
_TABLES = ("users", "identities", "revoked_sessions")
_PAIRS = ", ".join(f"'{table}', {_ROWS.format(table)}" for table in _TABLES)
_CONTENTS = f"SELECT jsonb_build_object({_PAIRS})"


def _connect(url: str) -> Any:
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=parse_qs(parts.query)["sslrootcert"][0])
    return pg8000.native.Connection(
        unquote(parts.username or ""), parts.hostname or "", parts.path[1:], parts.port or 0,
        unquote(parts.password or ""), ssl_context=context, timeout=30,
    )  # fmt: skip


class Served:
    """The app with settings and a store of its own; several of them can take turns."""

    def __init__(self, target: str = "api", **settings: str) -> None:
        self._target, self._variables = target, environment(**settings)
        self._start()
        self._connection = (
            _connect(settings["DATABASE_URL"]) if self.settings.store.use_database else None
        )

    def _start(self) -> None:
        with patch.dict(os.environ, self._variables, clear=True):
            create_app: Callable[[str, str], Flask] = functions_framework.create_app
            self._flask = create_app(self._target, f"{ROOT}/main.py")
        self.application: Application = sys.modules["main"].applications.own
        self.settings: Settings = self.application.settings

    @property
    def store(self) -> Store:
        """The application's."""
        return self.application.store

    def restart(self) -> None:
        """Forget what lives as long as a process, as a new one has."""
        self.application.close()
        self._start()

    def send(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        length: str | None = None,
        **options: Any,
    ) -> TestResponse:
        """Send a request and read the whole answer; `length` is another Content-Length."""
        environ = EnvironBuilder(path, method=method, **options).get_environ()
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body)) if length is None else length
        for name, value in headers:
            key = name.upper().replace("-", "_")
            key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
            # As the server joins several headers of one name.
            joint = "; " if key == "HTTP_COOKIE" else ","
            is_another = key in environ and key != "HTTP_HOST"
            environ[key] = f"{environ[key]}{joint}{value}" if is_another else value
        parts = run_wsgi_app(self._flask, environ, buffered=True)
        return TestResponse(*parts, Request(environ))

    def post(
        self, path: str, body: Mapping[str, Any], *headers: tuple[str, str], method: str = "POST"
    ) -> TestResponse:
        """Send members as JSON, as front ends do."""
        content_type = ("Content-Type", "application/json")
        return self.send(method, path, [content_type, *headers], json.dumps(body).encode())

    def stored_users(self) -> dict[str, dict[str, Any]]:
        """Read what is stored of each user, by address, without the code under test."""
        return {user["email"]: user for user in self.contents()["users"]}

    def contents(self) -> dict[str, Any]:
        """Read all that is stored, but for counts of attempts and the audit."""
        if self._connection is None:
            file = self.settings.store.users_file
            return {"users": json.loads(file.read_bytes()) if file.exists() else []}
        ((found,),) = self._connection.run(_CONTENTS)
        return dict(found)

    def close(self) -> None:
        """Let go of connections."""
        self.application.close()
        if self._connection is not None:
            self._connection.close()


@contextmanager
def served(target: str = "api", **settings: str) -> Iterator[Served]:
    """Serve the functions."""
    running = Served(target, **settings)
    try:
        yield running
    finally:
        running.close()
