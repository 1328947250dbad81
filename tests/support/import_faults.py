"""What the tests of faults of an import share: its files, its target, and when a fault happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.commands import Command, Ended, run
from tests.support.interceptor import Interceptor, Message
from tests.support.postgres import Server
from tests.support.transfers import Target, user
from tests.support.waiting import until

USERS = 300
AT_ONCE = 8.0
"""Seconds in which a run ends that waits for nobody: some tenths, and a slow machine."""
NOTHING, EVERYTHING = [[0, 0, 0, 0]], [[USERS, USERS, 1, USERS]]
APPLY = ("apply", "--yes", "--skip-invalid")
_STATE = """
SELECT (SELECT count(*) FROM users), (SELECT count(DISTINCT email_key) FROM users),
       (SELECT count(*) FROM import_batches), (SELECT count(*) FROM import_records)
"""
_OTHERS = """
FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
AND pid <> pg_backend_pid()
"""
_WAITING = f"SELECT count(*) {_OTHERS} AND wait_event_type = 'Lock'"
TERMINATE = f"SELECT pg_terminate_backend(pid, 10000) {_OTHERS}"


class AskedOften(Target):
    """A target with one connection for all that is asked, because tests here ask often."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(server, name)
        self._asking = threading.Lock()
        self._connection = server.connect(name)

    def run(self, sql: str) -> list[list[Any]]:
        """Run SQL as the superuser, past our code."""
        with self._asking:
            rows: list[list[Any]] = self._connection.run(sql)
            return rows

    def close(self) -> None:
        super().close()
        self._connection.close()


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows, indent=1))
    return path


def url(target: Target) -> str:
    return target.server.url(target.name)


def state(target: Target) -> list[list[Any]]:
    """Count users, their keys, batches and records."""
    return target.run(_STATE)


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give every file of a folder, and the folder, with mode, time and bytes."""
    return {
        path.name: (path.stat().st_mode, path.stat().st_mtime_ns, _bytes(path))
        for path in [folder, *folder.iterdir()]
    }


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""


def check_files(users_file: Path) -> list[str]:
    """Check that what has a real name is whole, and give the names of all but the source."""
    for path in users_file.parent.glob("users.report.*.jsonl"):
        rows = [json.loads(line)["row"] for line in path.read_text().splitlines()]
        assert rows == list(range(1, USERS + 2))
    for path in users_file.parent.glob("users.rejected.*.json"):
        assert json.loads(path.read_text()) == [user(USERS, email="nobody")]
    names = sorted(path.name for path in users_file.parent.iterdir())
    names.remove("users.json")
    for name in names:
        assert name.endswith((".tmp", ".json", ".jsonl"))
    return names


def waiting(target: Target) -> int:
    """Count who waits for a lock."""
    return int(target.run(_WAITING)[0][0])


def sessions_end(target: Target) -> None:
    """Wait until the server has noticed that its clients are gone."""
    until(lambda: target.run(f"SELECT count(*) {_OTHERS}") == [[0]])


def forget(target: Target, users_file: Path) -> None:
    """Begin anew."""
    target.run("TRUNCATE users, identities, import_batches, import_records")
    for path in users_file.parent.iterdir():
        if path != users_file:
            path.unlink()


class Nth:
    """Is true at the n-th request of a client, the rows of a COPY included; counts them all."""

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self.count = 0

    def __call__(self, message: Message) -> bool:
        if message.sender != "client" or message.kind not in "QPdcp":
            return False
        self.count += 1
        return self.count == self._number


def is_brought_by_the_next(target: Target, users_file: Path) -> bool:
    """Apply once more, which must work at once, and tell if everything was there already."""
    started = time.monotonic()
    again = run(url(target), users_file, *APPLY)
    assert again.code == 0, again.error
    assert time.monotonic() - started < AT_ONCE
    assert state(target) == EVERYTHING
    check_files(users_file)
    return "Nothing to write" in again.output


def is_committed(message: Message) -> bool:
    """Tell whether the server says that it has committed."""
    return message.is_committed


@contextlib.contextmanager
def locked(target: Target, sql: str) -> Iterator[None]:
    """Hold a lock in a transaction of another session."""
    with target.server.connect(target.name) as connection:
        connection.run("BEGIN")
        connection.run(sql)
        yield


def signalled(
    interceptor: Interceptor,
    target: Target,
    users_file: Path,
    arguments: tuple[str, ...],
    number: signal.Signals,
    condition: Callable[[Message], object],
) -> Ended:
    """Send a signal at a message, which goes on only where the process does."""
    started = threading.Event()
    done = threading.Event()

    def watch(message: Message) -> bool:
        if done.is_set() or not condition(message):
            return False
        done.set()
        started.wait()
        command.process.send_signal(number)
        if message.is_commit and number != signal.SIGKILL:
            return False
        until(lambda: _has_ended(command.process))
        return True

    interceptor.watch = watch
    command = Command(interceptor.url(target.name), users_file, *arguments)
    started.set()
    ended = command.wait()
    assert done.is_set(), ended
    return ended


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Look without taking the process's status from the thread that waits for it."""
    try:
        status = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def run_watched(
    interceptor: Interceptor,
    target: Target,
    users_file: Path,
    watch: Callable[[Message], object],
    *arguments: str,
) -> Ended:
    interceptor.watch = watch
    return run(interceptor.url(target.name), users_file, *(arguments or APPLY))
