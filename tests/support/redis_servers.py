"""Real servers of Redis, and false ones that speak as a test likes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.support.certificates import Authority
from tests.support.postgres import free_port
from tests.support.waiting import until

PASSWORD = "p@ss/canary"
_QUOTED = "p%40ss%2Fcanary"


class RedisServer:
    """One that runs, with a password and, where there is an authority, with TLS alone."""

    def __init__(self, program: str, folder: Path, authority: Authority | None, port: int) -> None:
        self._program, self._folder, self._authority = program, folder, authority
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The right URL."""
        if self._authority is None:
            return f"redis://:{_QUOTED}@127.0.0.1:{self.port}"
        roots = self._authority.certificate
        return f"rediss://:{_QUOTED}@localhost:{self.port}?ssl_ca_certs={roots}"

    def start(self) -> None:
        options = {"port": self.port, "bind": "127.0.0.1", "requirepass": PASSWORD, "save": ""}
        if self._authority is not None:
            certificate, key = self._authority.issue("redis", ("localhost",))
            options |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": certificate,
                "tls-key-file": key,
                "tls-auth-clients": "no",
            }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *words], cwd=self._folder, stdout=log, stderr=log
            )
        until(self._is_there)

    def _is_there(self) -> bool:
        with suppress(redis.ConnectionError):
            return bool(self.run("PING"))
        return False

    def run(self, *words: str | int) -> Any:
        """Run a command, without the code under test."""
        client: Any = redis.Redis.from_url(self.url)
        try:
            return client.execute_command(*words)
        finally:
            client.close()

    def keys(self) -> dict[str, int]:
        """Give each key, and for how many more seconds it is there."""
        names = [name.decode() for name in self.run("KEYS", "*")]
        return {name: int(self.run("TTL", name)) for name in names}

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Have nobody listen; what it held is gone."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it stand still: the kernel accepts connections, nobody answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    @contextmanager
    def full(self, policy: str = "noeviction") -> Iterator[None]:
        """Have no room: refuse whatever needs memory, and perhaps forget all else before."""
        self.run("CONFIG", "SET", "maxmemory-policy", policy)
        self.run("CONFIG", "SET", "maxmemory", 1)
        try:
            yield
        finally:
            self.run("CONFIG", "SET", "maxmemory", 0)

    @contextmanager
    def another_password(self) -> Iterator[None]:
        """Know another password, and nobody who is connected."""
        client: Any = redis.Redis.from_url(self.url)
        client.execute_command("CONFIG", "SET", "requirepass", "another")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        try:
            yield
        finally:
            client.execute_command("CONFIG", "SET", "requirepass", PASSWORD)
            client.close()


@contextmanager
def running_redis(program: str, authority: Authority | None = None) -> Iterator[RedisServer]:
    """Run one."""
    with tempfile.TemporaryDirectory(prefix="auth-tests-") as folder:
        server = RedisServer(program, Path(folder), authority, free_port())
        try:
            server.start()
            yield server
        finally:
            server.kill()


Answer = Callable[[socket.socket], None]


class FalseRedis:
    """Takes connections, and does with each, after its first words, as a test likes."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                self._taken.append(taken)
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with suppress(OSError):
            while data := taken.recv(65536):
                self.heard.append(data)
                self.answer(taken)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for taken in self._taken:
            taken.close()


@contextmanager
def false_redis(answer: Answer) -> Iterator[FalseRedis]:
    """Run one that answers so."""
    server = FalseRedis(answer)
    try:
        yield server
    finally:
        server.close()
