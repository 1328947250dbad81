"""Starts functions-framework again and again out of one process that has imported it.

The import is most of what a start costs. `python -m tests.support.forks` reads lines of JSON: what
`Forks.start` sends, for which it forks a server and answers with its process, and the number of
such a process that has ended, for which it answers with the exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import runpy
import select
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path


class Forked:
    """A server's process, to be asked as a `subprocess.Popen` is."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Give the exit code, if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """Wait for its end, and give the exit code."""
        if self.returncode is None:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("functions_framework", timeout)
            os.close(self._descriptor)
            self.returncode = self._forks.ask(self.pid)
        return self.returncode


class Forks:
    """The process that forks them."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._asking = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"],
            cwd=Path(__file__).parents[2], env=variables, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self._process.communicate)

    def start(
        self, arguments: list[str], variables: dict[str, str], folder: str, output: Path
    ) -> Forked:
        """Start one in a folder and a session of its own."""
        return Forked(self, self.ask([arguments, variables, folder, str(output)]))

    def ask(self, question: object) -> int:
        """Ask the process."""
        assert self._process.stdin
        assert self._process.stdout
        with self._asking:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


def _become(arguments: list[str], variables: dict[str, str], folder: str, output: str) -> None:
    """Have what a process has that is started so."""
    os.setsid()
    os.chdir(folder)
    for path, flags, descriptors in (
        (os.devnull, os.O_RDONLY, (0,)),
        (output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, (1, 2)),
    ):
        opened = os.open(path, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[0] = folder
    sys.argv[1:] = arguments
    random.seed()


def main() -> None:
    """Fork until standard input ends; in a fork, serve."""
    import functions_framework  # noqa: F401  # for the forks

    for line in sys.stdin:
        question = json.loads(line)
        if isinstance(question, int):
            _, status = os.waitpid(question, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _become(*question)
            runpy.run_module("functions_framework", run_name="__main__", alter_sys=True)
            return
        print(pid, flush=True)


if __name__ == "__main__":
    main()
