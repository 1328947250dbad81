"""The measured servers, in an environment with only requirements.txt."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Answer, CannotMeasure, Connection
from tests.support.emulator import ROOT, environment
from tests.support.postgres import free_port

PASSWORD = "correct horse battery staple"

_ENVIRONMENT = ROOT / ".venv-bench"
BIN = _ENVIRONMENT / "bin"
_REQUIREMENTS = ROOT / "requirements.txt"
_START_SECONDS = 60.0
_POLL_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Program:
    """A function under functions-framework, and its settings."""

    source: Path
    target: str
    settings: dict[str, str]


def ours(database_url: str, rounds: int, **more: str) -> Program:
    """Describe the whole API on Postgres."""
    settings = {"DATABASE_URL": database_url, "BCRYPT_ROUNDS": str(rounds)}
    return Program(ROOT / "main.py", "api", settings | more)


def floor(target: str, database_url: str = "", rounds: int = 4) -> Program:
    """Describe a function of bench/floors.py."""
    settings = {
        "DATABASE_URL": database_url,
        "BCRYPT_ROUNDS": str(rounds),
        "BENCH_PASSWORD": PASSWORD,
    }
    return Program(ROOT / "bench" / "floors.py", target, settings)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens."""

    port: int
    process: subprocess.Popen[bytes]
    output: Path

    def worker(self) -> int:
        """Give the process id of gunicorn's worker."""
        workers = children(self.process.pid)
        if len(workers) != 1:
            raise CannotMeasure(f"gunicorn has {len(workers)} workers, not one")
        return workers[0]


def children(pid: int) -> list[int]:
    """Give the ids of a process's children."""
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@contextmanager
def running(*programs: Program) -> Iterator[list[Running]]:
    """Start the programs side by side, and end them afterwards."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_started(program)) for program in programs]
        for server in servers:
            _connected(server).__exit__()
        yield servers


def start_milliseconds(program: Program, request: bytes) -> float:
    """Measure from before the process is made until it has answered its first request."""
    started = time.perf_counter()
    with _started(program) as server, _connected(server) as connection:
        answer = _exchange(server, connection, request)
        milliseconds = (time.perf_counter() - started) * 1000
    answer.check(200)
    return milliseconds


def make_environment() -> Path:
    """Install requirements.txt alone, without pip, unless that was done; give its site-packages."""
    wanted = f"{sys.version}\n{_REQUIREMENTS.read_text()}"
    stamp = _ENVIRONMENT / "installed"
    if not (stamp.exists() and stamp.read_text() == wanted):
        pip = ("pip", "--quiet", "--disable-pip-version-check", "--python", BIN / "python")
        try:
            _run_module("venv", "--clear", "--without-pip", _ENVIRONMENT)
            _run_module(*pip, "install", "--compile", "-r", _REQUIREMENTS)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(_ENVIRONMENT, ignore_errors=True)
            raise CannotMeasure("requirements.txt could not be installed") from error
        stamp.write_text(wanted)
    (site_packages,) = _ENVIRONMENT.glob("lib/python*/site-packages")
    return site_packages


def process_environment(**settings: str) -> dict[str, str]:
    """Give the variables for a process of ours, as in production."""
    variables = environment(**settings)
    del variables["PYTHONWARNINGS"]  # It is for the tests.
    return variables


def _run_module(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", *arguments], check=True)


@contextmanager
def _started(program: Program) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="auth-bench-") as folder:
        output = Path(folder) / "output"
        port = free_port()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [
                    BIN / "functions-framework",
                    "--source", program.source, "--target", program.target,
                    "--host", "127.0.0.1", "--port", str(port),
                ],
                cwd=folder, env=process_environment(**program.settings),
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            yield Running(port, process, output)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the master end its worker, so that it does not disturb the next measurement."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _connected(server: Running) -> Connection:
    """Connect as soon as the port is open; the kernel keeps the request until it is accepted."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return Connection(server.port)
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasure(f"a server doesn't start:\n{_tail(server)}") from error
            time.sleep(_POLL_SECONDS)


def _exchange(server: Running, connection: Connection, request: bytes) -> Answer:
    try:
        return connection.exchange(request)
    except (CannotMeasure, OSError) as error:
        raise CannotMeasure(f"{error}:\n{_tail(server)}") from error


def _tail(server: Running) -> str:
    return server.output.read_text(errors="replace")[-3000:]
