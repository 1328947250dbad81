"""A disk that is full or broken, or a folder that may not be used, at each call in turn.

Whatever fails is told in a sentence that names the file; the old file or the new one is there as a
whole; nothing is left that would be in the way; and the same works once the fault is gone.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
            entry = [
                f"{name}@example.com",
                name,
                f"{name}@example.com",
                None,
                "local",
                0,
                None,
                HASH,
            ]
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


EACH_CALL = pytest.mark.parametrize(
    "in_each_way", [False, pytest.param(True, marks=pytest.mark.long)]
)
"""Where each takes a database: each call fails in one way, and in the long run in each."""


@EACH_CALL
def test_an_export_to_a_broken_disk_is_told_of_and_leaves_nothing(
    target: Target, tmp_path: Path, *, in_each_way: bool
) -> None:
    target.apply([row(number) for number in range(3)])
    _check_all(partial(_export_of, target), tmp_path, lasting=False, in_each_way=in_each_way)


@EACH_CALL
def test_a_sign_up_that_lost_its_address_is_in_the_file_or_once_in_the_quarantine(
    target: Target, tmp_path: Path, *, in_each_way: bool
) -> None:
    target.apply([row(1, email="eve@example.com")])
    _check_all(partial(_quarantine, target), tmp_path, lasting=False, in_each_way=in_each_way)


def _quarantine(target: Target, folder: Path) -> Task:
    file = folder / "users.json"
    _store(file).create_user(_user("eve")._replace(id=str(uuid.uuid4())), HASH)
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


def _check_all(
    make: Callable[[Path], Task], folder: Path, *, lasting: bool, in_each_way: bool = True
) -> None:
    calls = _calls(make, folder / "sound")
    ways = list(itertools.product(range(len(calls)), NUMBERS))
    if not in_each_way:  # Another one for the next call.
        ways = list(zip(range(len(calls)), itertools.cycle(NUMBERS), strict=False))
    faults = 0
    for at, number in ways:
        inner = folder / f"{at}-{number}"
        disk = BrokenFiles(inner, at, number, lasting=lasting)
        faults += _check(make, inner, disk, lasting=lasting)
    assert faults > len(ways) / len(NUMBERS)


@pytest.mark.parametrize("kind", ["symlink", "folder", "locked by another user"])
def test_a_file_that_could_not_be_used_is_told_of_before_it_is(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a ConfigMap's link, or the lock that root has made."""
    file = tmp_path / "users.json"
    assert files.obstacle(file) is None
    if kind == "symlink":
        file.symlink_to(tmp_path / "..data")
    elif kind == "folder":
        file.mkdir()
    else:
        file.with_name("users.json.lock").touch()
        real = os.open

        def guarded(path: Any, *arguments: int) -> int:
            if str(path) == f"{file}.lock":  # Root itself may open any.
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *arguments)

        monkeypatch.setattr(os, "open", guarded)
    told = {
        "symlink": f"{file} is a symbolic link, not a regular file",
        "folder": f"{file} is not a regular file",
        "locked by another user": f"{file}.lock: Permission denied",
    }
    assert files.obstacle(file) == told[kind]


@pytest.mark.parametrize("is_first", [True, False])
def test_what_root_writes_stays_the_services(
    is_first: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Root reconciles, and the service goes on: it must be able to read and to lock the file."""
    given = []

    def fchown(descriptor: int, owner: int, group: int) -> None:
        given.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, owner, group))

    file = tmp_path / "users.json"
    if not is_first:
        file.write_text("[]")
    real = Path.lstat
    model = tmp_path if is_first else file

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        changed = list(status)
        changed[4:6] = (1234, 5678)
        return os.stat_result(changed) if path == model else status

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(Path, "lstat", lstat)
    for name in ("ada", "eve"):  # Only what it has made: the lock may be another's file by now.
        _store(file).create_user(_user(name), HASH)
    written = ("users.json.tmp", 1234, 5678)
    assert given[:2] == [("users.json.lock", 1234, 5678), written]
    assert [name for name, *_ in given[2:]] == ["users.json.tmp"]


# The same from the outside, by the kernel's own word


def _backup_with(strace_program: str, source: Path, fault: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            strace_program, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}",
            sys.executable, "-m", "shared.transfer", "backup",
        ],
        cwd=ROOT, env=environment(USERS_FILE=str(source)), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("calls", "number"), [("fsync", errno.EIO), ("link,linkat", errno.EACCES)])
def test_a_command_on_a_broken_disk_says_so_and_leaves_nothing(
    strace_program: str, tmp_path: Path, calls: str, number: int
) -> None:
    source = tmp_path / "users.json"
    source.write_text(json.dumps([row(1)]))
    result = _backup_with(strace_program, source, f"{calls}:error={errno.errorcode[number]}")
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


# What a file system cannot do


def test_where_nothing_can_be_synced_it_is_written_with_one_warning(
    strace_program: str, tmp_path: Path
) -> None:
    source = tmp_path / "users.json"
    source.write_text(json.dumps([row(1)]))
    done = _backup_with(strace_program, source, "fsync:error=EINVAL")
    assert done.returncode == 0, done.stderr
    (copy,) = tmp_path.glob("users.backup.*.json")
    assert copy.read_bytes() == source.read_bytes()
    warning = f"What is written to {tmp_path} may be lost if the machine fails"
    assert done.stderr.count(warning) == 1


@pytest.mark.parametrize("call", ["fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_call_that_a_file_system_does_not_have_keeps_no_file_from_being_written(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    new, replaced = tmp_path / "export.json", tmp_path / "users.json"
    with files.creating(new) as file:
        file.write(b"[]")
    for data in (b"[1]", b"[2]"):
        files.replace(replaced, data)
    assert (new.read_bytes(), replaced.read_bytes()) == (b"[]", b"[2]")
    assert set(tmp_path.iterdir()) == {new, replaced}


def test_without_hard_links_nothing_is_overwritten_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def link(source: Path, _: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "export.json"

    def create(name: str, *, meanwhile: Callable[[], object]) -> None:
        with files.creating(tmp_path / name) as file:
            file.write(b"mine")
            meanwhile()

    with pytest.raises(FileExistsError):
        create(path.name, meanwhile=lambda: path.write_text("somebody else's"))
    assert path.read_text() == "somebody else's"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        create("other.json", meanwhile=lambda: patch.setattr(Path, "rename", _fail))
    assert list(tmp_path.iterdir()) == [path]


def test_where_links_are_forbidden_a_command_gives_its_file_a_name_all_the_same(
    strace_program: str, tmp_path: Path
) -> None:
    source = tmp_path / "users.json"
    source.write_text(json.dumps([row(1)]))
    done = _backup_with(strace_program, source, "link,linkat:error=EPERM")
    assert done.returncode == 0, done.stderr
    (copy,) = set(tmp_path.iterdir()) - {source}
    assert copy.read_bytes() == source.read_bytes()


def _fail(path: Path, _: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_folder_that_may_be_written_but_not_read_is_good_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.open

    def without_reading(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", without_reading)
    files.replace(tmp_path / "users.json", b"[]")
    assert (tmp_path / "users.json").read_bytes() == b"[]"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_nothing_is_written_and_the_remedy_is_named(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / "users.json"
    file.write_text("[]")
    monkeypatch.setattr(fcntl, "flock", flock)
    remedy = "has no locks: keep it on a local disk, or mount it with locks"
    with pytest.raises(StoreUnavailable, match=f"{file} cannot be locked: .*{remedy}"):
        _store(file).create_user(_user("eve"), HASH)
    told = files.obstacle(file)
    assert told is not None
    assert remedy in told
    assert file.read_text() == "[]"
    assert {path.name for path in tmp_path.iterdir()} == {"users.json", "users.json.lock"}


_MOUNTED = """
import os, sys
from pathlib import Path
import main
from shared.errors import StoreUnavailable
from shared.model.users import User
try:
    main.applications.own.store.create_user(User("x", "eve@example.com", None, "local"), "hash")
except StoreUnavailable as error:
    print("refused:", error.cause)
"""


def test_a_users_file_that_is_mounted_by_itself_is_told_of_at_the_start_with_the_remedy(
    tmp_path: Path,
) -> None:
    file = tmp_path / "user data" / "users.json"
    file.parent.mkdir()
    file.write_text("[]")
    done = _in_a_namespace('mount --bind "$USERS_FILE" "$USERS_FILE"', _MOUNTED, file.parent)
    told, refused = done.splitlines()
    line = json.loads(told)
    assert (line["severity"], line["message"]) == (
        "ERROR",
        "users.json cannot be written: sign-ups and password changes will fail",
    )
    assert "mount its folder instead" in line["cause"]
    assert "users.json cannot be written: It is mounted by itself" in refused
    assert file.read_text() == "[]"
    assert sorted(path.name for path in file.parent.iterdir()) == ["users.json", "users.json.lock"]


_READ_ONLY = """
import os
from pathlib import Path
from shared.store.settings import StoreSettings
from shared.store.start_up import check_users_file
file = Path(os.environ["USERS_FILE"])
for mode in ("off", "readonly", "full"):
    check_users_file(StoreSettings(use_database=True, users_file=file, fallback=mode))
check_users_file(StoreSettings(users_file=file))
check_users_file(StoreSettings(users_file=file.parent / "made" / "later" / "users.json"))
"""


def test_a_folder_that_is_read_only_is_told_of_at_the_start_if_it_is_needed(
    tmp_path: Path,
) -> None:
    done = _in_a_namespace('mount -t tmpfs -o ro none "$FOLDER"', _READ_ONLY, tmp_path)
    lines = [json.loads(line) for line in done.splitlines()]
    assert [line["message"].partition(":")[0] for line in lines] == [
        "users.json.snapshot cannot be written",
        *["users.json cannot be written"] * 3,
    ]
    assert {line["cause"] for line in lines} == {f"{tmp_path}: Read-only file system"}


def _in_a_namespace(mount: str, code: str, folder: Path) -> str:
    """Run Python code where a file system is mounted, and give what it prints."""
    file = folder / "users.json"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(USERS_FILE=str(file), USE_DATABASE="false", FOLDER=str(folder)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr and not os.environ.get("CI"):
        pytest.skip("a namespace of one's own is not allowed here")
    assert done.returncode == 0, done.stderr
    return done.stdout


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
