"""A source that cannot be used, or changes meanwhile, is refused and left alone."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import InvalidSource
from shared.transfer import backup
from tests.support.commands import Command, run
from tests.support.import_faults import APPLY, NOTHING, snapshot, state, url, write
from tests.support.interceptor import Interceptor, Message
from tests.support.transfers import Target, finish, user

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"\xff" * 20
    path.write_bytes(data)


def _garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20] = b"[" * 20
    path.write_bytes(data)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _symlink(path: Path) -> None:
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("command", "spoil", "sentence"),
    [
        (APPLY, _truncated, "breaks off"),
        (APPLY, _damaged, "is not in UTF-8"),
        (APPLY, _garbled, "row 151"),
        (APPLY, _empty, "is empty"),
        *(
            (command, *case)
            for command in (APPLY, ("backup",))
            for case in (
                (_fifo, "is not a regular file"),
                (_symlink, "is a symbolic link"),
                (_folder, "is not a regular file"),
                (_missing, "There is no file"),
            )
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_a_sentence_and_left_alone(
    target: Target,
    users_file: Path,
    spoil: Callable[[Path], None],
    sentence: str,
    command: tuple[str, ...],
) -> None:
    """A backup takes any bytes, but no other thing than a file."""
    spoil(users_file)
    before = target.dump(), snapshot(users_file.parent)
    ended = run(url(target), users_file, *command)
    assert ended.code == 2, ended
    assert sentence in ended.error.splitlines()[-1]
    assert "Traceback" not in ended.error
    assert (target.dump(), snapshot(users_file.parent)) == before


@pytest.mark.parametrize("command", [APPLY, ("backup",)])
def test_a_source_that_may_not_be_read_is_refused_in_a_sentence(
    target: Target, users_file: Path, command: tuple[str, ...]
) -> None:
    content = users_file.read_bytes()
    users_file.chmod(0)
    before = snapshot(users_file.parent)
    ended = Command(url(target), users_file, *command, before=_as_an_ordinary_owner).wait()
    assert ended.code == 2, ended
    assert ended.error.endswith("users.json cannot be read: Permission denied.\n")
    assert snapshot(users_file.parent) == before
    users_file.chmod(0o600)
    assert users_file.read_bytes() == content
    assert state(target) == NOTHING


def _as_an_ordinary_owner() -> None:
    """Take from root what lets it read everything."""
    libc = ctypes.CDLL(None)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # Fails for whom it doesn't concern.


def _replace(path: Path) -> None:
    """As the JSON store and most editors do it."""
    fresh = write(path.with_name("fresh"), [user(1)])
    fresh.rename(path)


def _append(path: Path) -> None:
    with path.open("a") as file:
        file.write(" ")


def _overwrite(path: Path) -> None:
    """As the old server does it."""
    path.write_bytes(path.read_bytes().replace(b"@example.com", b"@example.org"))


@pytest.mark.parametrize("change", [_replace, _append, _overwrite, _truncated, _missing])
def test_a_source_that_changes_while_it_is_read_is_not_brought(
    target: Target, interceptor: Interceptor, users_file: Path, change: Callable[[Path], None]
) -> None:
    """Neither the old bytes nor the new ones are what the operator has, and least of all both."""
    write(users_file, [user(n) for n in range(5_000)])
    _change_at(interceptor, users_file, change, lambda message: message.kind == "d")
    ended = run(interceptor.url(target.name), users_file, *APPLY)
    assert ended.code == 2, ended
    assert "The file " in ended.error.splitlines()[-1]
    assert state(target) == NOTHING
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []


@pytest.mark.parametrize("change", [_replace, _overwrite])
def test_rejected_rows_are_those_of_the_source_that_was_read(
    target: Target, interceptor: Interceptor, users_file: Path, change: Callable[[Path], None]
) -> None:
    """They are read a second time, before the COMMIT; a source that changed by then is refused."""
    _change_at(
        interceptor, users_file, change,
        lambda message: "INSERT INTO users" in message.sql,
    )  # fmt: skip
    ended = run(interceptor.url(target.name), users_file, *APPLY)
    assert ended.code == 2, ended
    assert "changed while it was read" in ended.error
    assert state(target) == NOTHING
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []


def _change_at(
    interceptor: Interceptor,
    users_file: Path,
    change: Callable[[Path], None],
    condition: Callable[[Message], object],
) -> None:
    done = threading.Event()

    def watch(message: Message) -> None:
        if not done.is_set() and condition(message):
            done.set()
            change(users_file)

    interceptor.watch = watch


@pytest.mark.parametrize("change", [_replace, _append, _overwrite, _truncated, _missing])
def test_a_backup_of_a_source_that_changes_meanwhile_leaves_no_backup(
    users_file: Path, change: Callable[[Path], None]
) -> None:
    write(users_file, [user(n) for n in range(5_000)])
    os.utime(users_file, (0, 0))  # So that the clock's tick hides no change.
    running = backup.back_up(users_file, 0)
    next(running)
    change(users_file)
    with pytest.raises(InvalidSource, match="changed while it was read"):
        finish(running)
    assert [path for path in users_file.parent.iterdir() if path != users_file] == []
