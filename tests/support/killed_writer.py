"""Writes a JSON store again and again, killed at each next line of the code that writes it.

`python -m tests.support.killed_writer USERS_FILE` prints, for each kill, whether the file then held
the users from before or those from after, and whether the store could be used at once.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

from shared import files
from shared.config import Settings
from shared.store import json_file
from shared.users import User

_WATCHED = {files.__file__, json_file.__file__}


def main(path: Path) -> None:
    """Kill at line 1, 2, 3, … until a write gets through."""
    store = json_file.JsonFileStore(Settings(users_file=path))
    store.create_user(_user("first"), "hash")
    before = path.read_bytes()
    for number in itertools.count(1):
        path.write_bytes(before)
        user = _user(f"user{number}")
        child = os.fork()
        if child == 0:
            _die_at_line(number)
            store.create_user(user, "hash")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        stored = path.read_bytes()
        outcome = "before" if stored == before else "after" if _is_last(stored, user) else "neither"
        store.create_user(_user("next"), "hash")
        print(outcome)
        if os.WIFEXITED(status):
            return


def _user(name: str) -> User:
    return User(id=str(uuid.uuid4()), email=f"{name}@example.com", name=None, provider="local")


def _is_last(stored: bytes, user: User) -> bool:
    return bool(json.loads(stored)[-1]["id"] == user.id)


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
    main(Path(sys.argv[1]))
