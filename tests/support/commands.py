"""`python -m shared.transfer` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.emulator import ROOT, environment

_SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    output: str
    error: str


class Command:
    """A command that runs until it is waited for."""

    def __init__(self, url: str, users_file: Path, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shared.transfer", *arguments],
            cwd=ROOT, env=environment(DATABASE_URL=url, USERS_FILE=str(users_file)), text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
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


def run(url: str, users_file: Path, *arguments: str, **options: Any) -> Ended:
    """Run a command to its end."""
    return Command(url, users_file, *arguments, **options).wait()


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
