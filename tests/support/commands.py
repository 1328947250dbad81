"""`python -m shared.transfer`, as a process of its own or in this one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from shared.transfer.actions import transfer
from tests.support.emulator import ROOT, environment

_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    output: str
    error: str


def invoke(arguments: tuple[str, ...], variables: Mapping[str, str]) -> Ended:
    """Run a command to its end in this process, where no process of its own shows more."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended = CliRunner().invoke(transfer, arguments, "python -m shared.transfer", env=variables)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def run(url: str, users_file: Path, *arguments: str) -> Ended:
    """Run a command to its end in this process."""
    return invoke(arguments, environment(DATABASE_URL=url, USERS_FILE=str(users_file)))


class Command:
    """A command as a process, which runs until it is waited for.

    It can be interrupted also where this process ignores SIGINT, as what a shell has started in the
    background does.
    """

    def __init__(
        self,
        url: str,
        users_file: Path,
        *arguments: str,
        before: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> None:
        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            before()

        self.process = subprocess.Popen(
            [sys.executable, "-m", "shared.transfer", *arguments],
            cwd=ROOT, env=environment(DATABASE_URL=url, USERS_FILE=str(users_file)), text=True,
            preexec_fn=prepare, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        )  # fmt: skip

    def wait(self) -> Ended:
        """Give its end."""
        try:
            output, error = self.process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return Ended(self.process.returncode, output or "", error or "")


class Stopped:
    """Commands that get a signal at their n-th line; see `tests.support.stopped_transfer`."""

    def __init__(self, number: signal.Signals, url: str, users_file: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stopped_transfer", number.name, *arguments],
            cwd=ROOT, env=environment(DATABASE_URL=url, USERS_FILE=str(users_file)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Stopped:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def at(self, line: int) -> tuple[int, int]:
        """Run a command, and give its exit code and how many lines it came to."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        code, lines = self._process.stdout.readline().split()
        return int(code), int(lines)
