"""A disk that is full or broken, or a folder that may not be used, at each call in turn.

Whatever fails is told in a sentence that names the file; the old file or the new one is there as a
whole; nothing is left that would be in the way; and the same works once the fault is gone.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared import files
from shared.credentials import development_secret
from shared.environment import InvalidSettings
from shared.errors import StoreUnavailable
from shared.model.users import User
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from shared.store.snapshot import Snapshot
from shared.transfer import backup
from shared.transfer.actions import transfer
from shared.transfer.command import FAILED, USAGE
from shared.transfer.outputs import Outputs
from shared.transfer.reconciling import quarantine_of, reconcile
from tests.support.broken_files import BrokenFiles, Call
from tests.support.emulator import ROOT, SECRET, environment, running_emulator
from tests.support.transfers import HASH, Target, finish
from tests.support.transfers import user as row

NUMBERS = (errno.ENOSPC, errno.EIO, errno.EACCES)
TAKEN_AT = 1_800_000_000.0


class _Refused(Exception):
    """A command has ended with an exit code that is not 0; its output is the message."""


@dataclass
class Task:
    """Something that writes a file, in a folder of its own.

    `is_done` looks whether it was done, without the code that did it; before that, the file holds
    what it held.
    """

    file: Path
    do: Callable[[], object]
    is_done: Callable[[], bool]

    def __post_init__(self) -> None:
        self.before = self.held()

    def held(self) -> bytes | None:
        """Read the file without the code under test."""
        return self.file.read_bytes() if self.file.exists() else None


def _user(name: str) -> User:
    return User(id=name, email=f"{name}@example.com", name=None, provider="local")


def _store(file: Path) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=file), is_fallback=True)


def _ids(file: Path) -> list[str]:
    return [record["id"] for record in json.loads(file.read_bytes())]


def _first_sign_up(folder: Path) -> Task:
    file = folder / "data" / "users.json"
    store = _store(file)
    return Task(
        file,
        lambda: store.create_user(_user("ada"), HASH),
        lambda: file.exists() and _ids(file) == ["ada"],
    )


def _sign_up(folder: Path) -> Task:
    file = folder / "users.json"
    store = _store(file)
    store.create_user(_user("ada"), HASH)
    return Task(
        file, lambda: store.create_user(_user("eve"), HASH), lambda: _ids(file) == ["ada", "eve"]
    )


def _sign_up_by_a_new_process(folder: Path) -> Task:
    task = _sign_up(folder)
    task.do = lambda: _store(task.file).create_user(_user("eve"), HASH)
    return task


def _resolve(folder: Path) -> Task:
    file = folder / "users.json"
    store = _store(file)
    for name in ("ada", "eve"):
        store.create_user(_user(name), HASH)
    operation, _ = store.pending()
    brought: list[object] = []

    def do() -> None:
        # A fault after the file was replaced leaves nothing to resolve.
        store.resolve(operation, brought.append)
        assert brought

    return Task(file, do, lambda: _ids(file) == ["eve"] and bool(brought))


def _change(folder: Path) -> Task:
    file = folder / "users.json"
    store = _store(file)
    store.create_user(_user("ada"), "old")

    def is_done() -> bool:
        return bool(json.loads(file.read_bytes())[0]["password"] == "new")

    def do() -> None:
        assert store.replace_password_hash("ada", "old", "new") or is_done()

    return Task(file, do, is_done)


def _snapshot(folder: Path) -> Task:
    file = folder / "users.json.snapshot"

    def take(name: str) -> None:
        with files.locked(file, 0):
            entry = [f"{name}@example.com", name, f"{name}@example.com", None, "local", 0, HASH]
            Snapshot(file, [SECRET], "x").write([entry], taken_at=TAKEN_AT)

    def is_done() -> bool:
        return Snapshot(file, [SECRET], "x").find("eve@example.com", TAKEN_AT, 60) is not None

    take("ada")
    return Task(file, lambda: take("eve"), is_done)


def _report(folder: Path) -> Task:
    file = folder / "users.report.batch.jsonl"

    def do() -> None:
        with Outputs(folder / "users.json", "batch") as outputs:
            outputs.write("report", b"one\n", ".jsonl")
            outputs.write("report", b"two\n", ".jsonl")
            outputs.end()

    return _once(Task(file, do, lambda: file.exists() and file.read_bytes() == b"one\ntwo\n"))


def _once(task: Task) -> Task:
    """Do nothing where it is done: a new file is never written over."""
    do = task.do
    task.do = lambda: task.is_done() or do()
    return task


def _backup(folder: Path) -> Task:
    source = folder / "users.json"
    source.write_text(json.dumps([row(number) for number in range(2000)]))  # More than a buffer.
    file = folder / "users.backup.now.json"
    return _once(
        Task(
            file,
            lambda: _command(source, "backup"),
            lambda: file.exists() and file.read_bytes() == source.read_bytes(),
        )
    )


def _export_of(target: Target, folder: Path) -> Task:
    file = folder / "users.export.json"
    url = target.server.url(target.name)
    return _once(
        Task(
            file,
            lambda: _command(
                folder / "users.json", "export", "--output", str(file), DATABASE_URL=url
            ),
            lambda: file.exists() and len(_ids(file)) == 3,
        )
    )


def _command(users_file: Path, *arguments: str, **env: str) -> None:
    env |= {"USERS_FILE": str(users_file), "SESSION_SECRET": SECRET}
    ended = CliRunner().invoke(transfer, arguments, env=env)
    if isinstance(ended.exception, SystemExit) and ended.exit_code:
        assert ended.exit_code == FAILED or (
            ended.exit_code == USAGE and str(users_file) in ended.output
        )
        raise _Refused(ended.output)
    if ended.exception:
        raise ended.exception


def _development_secret(folder: Path) -> Task:
    file = folder / "data" / "session-secret"
    return Task(
        file,
        lambda: development_secret.keep(file.parent),
        lambda: file.exists() and len(file.read_bytes()) > 60,
    )


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what SIGTERM does; give backups one name."""
    monkeypatch.setattr(backup, "timestamp", lambda _: "now")
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


TASKS: list[Callable[[Path], Task]] = [
    _first_sign_up, _sign_up, _sign_up_by_a_new_process, _resolve, _change, _snapshot, _report,
    _backup, _development_secret,
]  # fmt: skip


def _calls(make: Callable[[Path], Task], folder: Path) -> list[Call]:
    """Give the calls of a task that nothing happens to."""
    folder.mkdir()
    task = make(folder)
    disk = BrokenFiles(folder)
    with disk.broken():
        task.do()
    assert task.is_done()
    return disk.calls


def _told(disk: BrokenFiles, task: Task) -> str | None:
    """Do the task on a broken disk; give what is told of it where it could not be done."""
    with disk.broken():
        try:
            task.do()
        except (StoreUnavailable, InvalidSettings, OSError, _Refused) as error:
            return str(error)
    return None


def _check(make: Callable[[Path], Task], folder: Path, disk: BrokenFiles, *, lasting: bool) -> bool:
    """Check one fault, and tell whether it was one."""
    folder.mkdir()
    task = make(folder)
    names = {path.name for path in folder.rglob("*")}
    open_before = len(os.listdir("/proc/self/fd"))
    told = _told(disk, task)
    where = f"{disk.calls[disk.at or 0]}: {told}"
    assert len(os.listdir("/proc/self/fd")) == open_before, where
    if told is None:
        assert task.is_done(), where
    else:
        assert str(folder) in told, where
        assert task.is_done() or task.held() == task.before, where
    call = disk.calls[disk.at or 0]
    if told and task.is_done() and not lasting:  # Only what comes last can no more be undone.
        assert call == Call("fsync", str(task.file.parent)) or call.path == str(task.file), where
    left = {path.name for path in folder.rglob("*")} - names - {task.file.name, "data"}
    if not lasting:  # What cannot be removed stays.
        assert left <= {f"{task.file.name}.lock"}, where
    if task.file.exists():
        assert task.file.stat().st_mode & 0o777 == 0o600
    task.do()
    assert task.is_done(), where
    return told is not None


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__.strip("_"))
def test_whichever_call_fails_the_old_file_or_the_new_one_is_there_and_the_error_names_it(
    make: Callable[[Path], Task], lasting: bool, tmp_path: Path
) -> None:
    _check_all(make, tmp_path, lasting=lasting)


def test_an_export_to_a_broken_disk_is_told_of_and_leaves_nothing(
    target: Target, tmp_path: Path
) -> None:
    target.apply([row(number) for number in range(3)])
    _check_all(partial(_export_of, target), tmp_path, lasting=False)


def test_a_sign_up_that_lost_its_address_is_in_the_file_or_once_in_the_quarantine(
    target: Target, tmp_path: Path
) -> None:
    target.apply([row(1, email="eve@example.com")])
    _check_all(partial(_quarantine, target), tmp_path, lasting=False)


def _quarantine(target: Target, folder: Path) -> Task:
    file = folder / "users.json"
    _store(file).create_user(replace(_user("eve"), id=str(uuid.uuid4())), HASH)
    quarantine = quarantine_of(file)
    quarantine.write_bytes(b"")
    quarantine.chmod(0o600)

    def do() -> None:
        finish(reconcile(target.database, _store(file), quarantine))

    def is_done() -> bool:
        quarantined = len(quarantine.read_bytes().splitlines())
        assert quarantined == 1 or (quarantined, len(_ids(file))) == (0, 1)
        return quarantined == 1 and _ids(file) == []

    return Task(file, do, is_done)


def _check_all(make: Callable[[Path], Task], folder: Path, *, lasting: bool) -> None:
    calls = _calls(make, folder / "sound")
    faults = 0
    for at, number in itertools.product(range(len(calls)), NUMBERS):
        inner = folder / f"{at}-{number}"
        disk = BrokenFiles(inner, at, number, lasting=lasting)
        faults += _check(make, inner, disk, lasting=lasting)
    assert faults > len(calls)


# The same from the outside, by the kernel's own word


@pytest.mark.parametrize(("calls", "number"), [("fsync", errno.EIO), ("link,linkat", errno.EACCES)])
def test_a_command_on_a_broken_disk_says_so_and_leaves_nothing(
    strace_program: str, tmp_path: Path, calls: str, number: int
) -> None:
    source = tmp_path / "users.json"
    source.write_text(json.dumps([row(1)]))
    result = subprocess.run(
        [
            strace_program, "-f", "-qq", "-o", "/dev/null",
            "-e", f"inject={calls}:error={errno.errorcode[number]}",
            sys.executable, "-m", "shared.transfer", "backup",
        ],
        cwd=ROOT, env=environment(USERS_FILE=str(source)), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == FAILED
    assert f"{os.strerror(number)}: {tmp_path}/users.backup." in result.stderr
    assert "Nothing was changed." in result.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_a_full_disk_is_a_503_and_a_sentence_in_the_log_until_there_is_room(
    strace_program: str, tmp_path: Path
) -> None:
    users_file = tmp_path / "users.json"
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    with (
        running_emulator(USE_DATABASE="false", USERS_FILE=str(users_file)) as emulator,
        emulator.client() as client,
    ):
        with _injected(strace_program, emulator.worker, "fsync:error=ENOSPC"):
            refused = client.post("/api/signup", json=body)
        assert not users_file.exists()
        assert client.post("/api/signup", json=body).status_code == 201
        log = emulator.output()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert str(users_file) not in refused.text
    assert f"{users_file} cannot be written: No space left on device" in log


@contextmanager
def _injected(strace_program: str, process: int, fault: str) -> Iterator[None]:
    """Have the kernel's answers to a running process be others in this block."""
    with subprocess.Popen(
        [strace_program, "-f", "-p", str(process), "-o", "/dev/null", "-e", f"inject={fault}"],
        stderr=subprocess.PIPE,
    ) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.terminate()
