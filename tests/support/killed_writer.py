"""Writes a file of users again and again, killed at each next line of the code that writes it.

`python -m tests.support.killed_writer FILE sign-up|resolve|snapshot` prints, for each kill, whether
the file then held the users from before or those from after, and whether it could be used at once.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from shared import files
from shared.model.users import User
from shared.store import snapshot
from shared.store.json_file import store
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from shared.store.snapshot import Snapshot

_WATCHED = {files.__file__, store.__file__, snapshot.__file__}


class _SignUp:
    """One user more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = JsonFileStore(StoreSettings(users_file=path), is_fallback=True)
        self.store.create_user(_user("first"), "hash")
        self.before = path.read_bytes()

    def prepare(self) -> None:
        self.path.write_bytes(self.before)

    def do(self) -> None:
        self.store.create_user(_user("second"), "hash")

    def is_done(self) -> bool:
        return self.ids() == ["first", "second"]

    def ids(self) -> list[str]:
        return [record["id"] for record in json.loads(self.path.read_bytes())]


class _Resolve(_SignUp):
    """One user less, who is where they belong."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        super().do()
        self.before = path.read_bytes()
        self._operation = self.store.pending()[0]
        self._brought = path.with_name("brought")

    def prepare(self) -> None:
        super().prepare()
        self._brought.unlink(missing_ok=True)

    def do(self) -> None:
        self.store.resolve(self._operation, lambda record: self._brought.write_text(record["id"]))

    def is_done(self) -> bool:
        return self.ids() == ["second"] and self._brought.read_text() == "first"


class _Snapshot:
    """A copy of other users."""

    def __init__(self, path: Path) -> None:
        self.snapshot = Snapshot(path, ["x" * 32], "d")
        self._write("old")
        self.path = path
        self.before = path.read_bytes()

    def prepare(self) -> None:
        self.path.write_bytes(self.before)

    def do(self) -> None:
        self._write("new")

    def is_done(self) -> bool:
        found = self.snapshot.find("user1@example.com", 1.0, 60.0)
        return found is not None and found.password_hash == "new"

    def _write(self, password_hash: str) -> None:
        users = [[f"user{n}@example.com", str(n), "e", None, "local", 0, None] for n in range(3)]
        self.snapshot.write([[*user, password_hash] for user in users], taken_at=1.0)


_KINDS: dict[str, type[_SignUp] | type[_Snapshot]] = {
    "sign-up": _SignUp,
    "resolve": _Resolve,
    "snapshot": _Snapshot,
}


def main(path: Path, kind: str) -> None:
    """Kill at line 1, 2, 3, … until a write gets through."""
    task = _KINDS[kind](path)
    for number in itertools.count(1):
        task.prepare()
        child = os.fork()
        if child == 0:
            _die_at_line(number)
            task.do()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        is_as_before = path.read_bytes() == task.before
        print("before" if is_as_before else "after" if task.is_done() else "neither")
        task.do()
        assert task.is_done(), "the store can be used at once"
        if os.WIFEXITED(status):
            return


def _user(name: str) -> User:
    return User(id=name, email=f"{name}@example.com", name=None, provider="local")


def _die_at_line(number: int) -> None:
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in _WATCHED:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
