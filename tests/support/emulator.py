"""The functions under the real functions-framework, as a process of their own."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.forks import Forked, Forks
from tests.support.postgres import TRANSPORT, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "Zm9yIHRlc3RzIG9ubHkgYW5kIG5vd2hlcmUgZWxzZSwgb2theT8"
UNLIMITED = dict.fromkeys(
    (
        "MAX_LOGIN_ATTEMPTS",
        "MAX_ACCOUNT_ATTEMPTS",
        "MAX_CLIENT_ATTEMPTS",
        "MAX_SIGNUPS",
        "MAX_LOGINS",
    ),
    "1000000",
)
"""For tests, which are one client; those of throttling set limits of their own."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: to read everybody's certificates would cost each client 25 ms."""
_START_SECONDS = 120
"""Far more than a start takes, also on a machine that is busy."""


class Emulator:
    """A running emulator: where it listens and what it logs."""

    def __init__(self, url: str, process: Forked | subprocess.Popen[bytes], output: Path) -> None:
        self.url = url
        self.process = process
        self._output = output

    def stop(self) -> None:
        """Stop it as a platform does, and wait for that."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def client(self, *, timeout: float = 30, **options: Any) -> httpx.Client:
        """Make a client with a cookie jar of its own."""
        return httpx.Client(
            base_url=self.url, timeout=timeout, verify=NO_TLS, trust_env=False, **options
        )

    def output(self) -> str:
        """Read everything that the process has written."""
        return self._output.read_text(errors="replace")

    def descriptors(self) -> int:
        """Count the open files and sockets of the worker."""
        return len(list(Path(f"/proc/{self.worker}/fd").iterdir()))

    def peak_memory(self) -> int:
        """Read the most memory that the worker ever had resident, in bytes."""
        (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{self.worker}/status").read_text())
        return int(line) * 1024

    @property
    def worker(self) -> int:
        """The process that answers."""
        pid = self.process.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(worker)

    def log(self) -> list[dict[str, Any]]:
        """Read the JSON lines that the process has logged."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]


def environment(**settings: str) -> dict[str, str]:
    """Give the variables for a process: nothing of the caller's own settings but the path."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    defaults = {
        "ENVIRONMENT": "test",
        "SESSION_SECRET": SECRET,
        "BCRYPT_ROUNDS": "4",
        "FALLBACK": "off",
        "PYTHONWARNINGS": "error",
    }
    return kept | defaults | UNLIMITED | TRANSPORT | settings


@functools.cache
def _forks() -> Forks:
    return Forks(environment())


@contextmanager
def running_emulator(
    target: str = "api",
    output: str = "",
    source: str = f"{ROOT}/main.py",
    stack: str = "",
    files: str = "",
    redirection: str = "",
    port: str = "",
    **settings: str,
) -> Iterator[Emulator]:
    """Start functions-framework with the settings, and stop it afterwards.

    It is a fork of a process that has imported it, unless it begins otherwise than most:
    `stack` is the size of a thread's stack in KiB, and `files` how many may be open, where the
    system's own shall not be used. A shell's `redirection` can take its standard streams away.
    """
    limits = "".join(
        f"ulimit -{name} {size} && " for name, size in (("s", stack), ("n", files)) if size
    )
    with tempfile.TemporaryDirectory(prefix="auth-tests-") as folder:
        path = Path(output or f"{folder}/output")
        port = port or str(free_port())
        arguments = ["--source", source, "--target", target]
        arguments += ["--host", "127.0.0.1", "--port", port]
        variables = environment(**settings)
        process: Forked | subprocess.Popen[bytes]
        if limits or redirection or {"HOME", "PYTHONPATH"} & settings.keys():
            with path.open("wb") as file:
                process = subprocess.Popen(
                    [
                        "sh", "-c", f'{limits}exec "$@" {redirection}', "sh",
                        sys.executable, "-m", "functions_framework", *arguments,
                    ],
                    cwd=folder, env=variables, stdout=file, stderr=file, start_new_session=True,
                )  # fmt: skip
        else:
            process = _forks().start(arguments, variables, folder, path)
        emulator = Emulator(f"http://127.0.0.1:{port}", process, path)
        try:
            _wait_until_it_answers(emulator)
            yield emulator
        finally:
            # To stop as it does by itself takes half a second.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def ended(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start functions-framework, which has to end by itself, and give how it did."""
    return subprocess.run(
        [
            sys.executable, "-m", "functions_framework",
            "--source", f"{ROOT}/main.py", "--target", "api", *arguments,
        ],
        env=environment(**settings), capture_output=True, text=True, check=False, timeout=60,
        start_new_session=True,
    )  # fmt: skip


def _wait_until_it_answers(emulator: Emulator) -> None:
    deadline = time.monotonic() + _START_SECONDS
    host, port = emulator.url.removeprefix("http://").split(":")
    with emulator.client() as client:
        while True:
            try:
                # While nobody listens, this is far cheaper than a request.
                socket.create_connection((host, int(port)), 1).close()
                client.request("OPTIONS", "/api/livez")
            except (OSError, httpx.TransportError):
                assert emulator.process.poll() is None, emulator.output()
                assert time.monotonic() < deadline, emulator.output()
                time.sleep(0.02)
            else:
                return
