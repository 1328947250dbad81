"""Delivers mails, or has them written, in a child process that is killed at its n-th line.

`python -m tests.support.killed_mail` reads JSON a line: the number, a task, and its arguments. It
forks for each, and answers with the child's exit status and the functions whose lines it came to,
one name a line. 0 is never reached.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

from shared import files
from shared.application import Application
from shared.database import connection
from shared.mail import delivery, smtp
from shared.model.users import User, Verification
from shared.settings import Settings
from shared.store.contract import Store
from shared.store.json_file import mail as json_mail
from shared.store.json_file import outbox as json_outbox
from shared.store.json_file import store as json_store
from shared.store.postgres import mail as postgres_mail
from shared.store.postgres import store as postgres_store
from tests.support.emulator import ROOT, environment
from tests.support.stores import CLIENT, credentials, stored

_WATCHED = {
    module.__file__: module.__name__.removeprefix("shared.")
    for module in (
        delivery, smtp, files, json_mail, json_outbox, json_store, postgres_mail, postgres_store
    )
}  # fmt: skip
_CHUNK = 256


class _ShortWrites(ssl.SSLSocket):
    """Sends a message in pieces, between which a process can end."""

    def send(self, data: Any, flags: int = 0) -> int:
        return super().send(memoryview(data)[:_CHUNK], flags)


def deliver(app: Application) -> None:
    """Deliver what is due, by the real transport."""
    transport = app.deliverer._transport
    assert isinstance(transport, smtp.SmtpTransport)
    transport._context.sslsocket_class = _ShortWrites
    app.deliverer.deliver()


def sign_up(app: Application, address: str) -> None:
    """Create a user who is asked to prove the address."""
    create(app.store, address)


def create(store: Store, address: str, verification: Verification = "asked") -> User:
    """Create a user, who is sent a mail where that is asked."""
    user = User(str(uuid.uuid4()), address, None, "local")
    return store.create_user(user, "hash", client=CLIENT, verification=verification)


def delete(app: Application, address: str) -> None:
    """Delete a user, who is told."""
    known = credentials(app.store, address)
    assert known
    attempt, found = stored(app.store, known.user)
    assert app.store.delete_user(attempt, found)


_TASKS = {task.__name__: task for task in (deliver, sign_up, delete)}


class Killed:
    """The process that forks them."""

    def __init__(self, **settings: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killed_mail"],
            cwd=ROOT, env=environment(**settings), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def at(self, number: int, task: str, *arguments: str) -> tuple[int, list[str]]:
        """Do a task as far as its n-th line; give the exit status and the lines' functions."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([number, task, *arguments]) + "\n")
        self._process.stdin.flush()
        code, places = json.loads(self._process.stdout.readline())
        return code, places

    def places(self, task: str, *arguments: str) -> list[str]:
        """Do a task, and give the function of each line."""
        code, places = self.at(0, task, *arguments)
        assert code == 0
        return places


def main() -> None:
    """Do what each line of standard input says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "places"
        for line in sys.stdin:
            number, task, *arguments = json.loads(line)
            child = os.fork()
            if child == 0:
                _run(number, task, arguments, path)
            _, status = os.waitpid(child, 0)
            answer = [os.waitstatus_to_exitcode(status), path.read_text().split("\n")]
            print(json.dumps(answer), flush=True)


def _run(stop_at: int, task: str, arguments: list[str], path: Path) -> None:
    places: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        module = _WATCHED.get(code.co_filename)
        if code.co_filename == connection.__file__ and code.co_name == "execute":
            module = "database.connection"
        if module is None or code.co_name == "_line":  # Whose loop depends on the network.
            return None
        if event == "line":
            places.append(f"{module}.{code.co_name}")
            if len(places) == stop_at:
                path.write_text("\n".join(places))
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # The log.
    app = Application(Settings.from_env())
    code = 1
    sys.settrace(trace)
    try:
        _TASKS[task](app, *arguments)
        code = 0
    finally:
        sys.settrace(None)
        path.write_text("\n".join(places))
        os._exit(code)


if __name__ == "__main__":
    main()
