"""The users file, its folder and the port, on a real file system and real sockets."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from shared import files
from shared.doctor import machine
from tests.support.broken_files import BrokenFiles
from tests.support.doctor import look, told
from tests.support.emulator import Emulator
from tests.support.postgres import free_port
from tests.support.reconciliations import sign_up


@pytest.fixture
def users(tmp_path: Path) -> Path:
    folder = tmp_path / "users"
    folder.mkdir()
    file = folder / "users.json"
    file.write_text("[]")
    file.chmod(0o600)
    return file


def test_a_users_file_in_order_is_told_and_nothing_is_left_behind(users: Path) -> None:
    (finding,) = look("files", USERS_FILE=str(users))
    assert finding.verdict == "ok"
    assert os.listdir(users.parent) == ["users.json"]
    (finding,) = look("files", USERS_FILE=str(users.parent / "not" / "yet.json"))
    assert finding.verdict == "ok"
    assert "made when it is needed" in finding.sentence
    assert os.listdir(users.parent) == ["users.json"]


def test_without_a_use_of_the_file_nothing_is_asked_of_it() -> None:
    url = "postgresql://u:p@localhost:1/d"
    (finding,) = look("files", USERS_FILE="/proc/x", DATABASE_URL=url, FALLBACK="off")
    assert finding.verdict == "ok"


@pytest.mark.parametrize("content", ["{", '{"users": []}', "[1]"])
def test_a_file_that_the_server_would_refuse_is_named(users: Path, content: str) -> None:
    users.write_text(content)
    (problem,) = told(look("files", USERS_FILE=str(users)), "problem")
    assert f"{users} is refused and left as it is" in problem
    assert users.read_text() == content


def test_a_link_and_a_folder_are_no_users_file(users: Path) -> None:
    link = users.with_name("link.json")
    link.symlink_to(users)
    for path in (link, users.parent):
        (problem,) = told(look("files", USERS_FILE=str(path)), "problem")
        assert "regular file" in problem


def test_a_file_of_hashes_that_others_may_read_is_a_note(users: Path) -> None:
    users.chmod(0o644)
    (note,) = told(look("files", USERS_FILE=str(users)), "note")
    assert f"chmod 600 {users}" in note


def test_sign_ups_of_an_outage_are_told_with_the_command(users: Path) -> None:
    users.unlink()
    sign_up(users, "ada@example.com")
    url = "postgresql://u:p@localhost:1/d"
    (note,) = told(look("files", USERS_FILE=str(users), DATABASE_URL=url), "note")
    assert "1 sign-up of an outage not yet in the database. Run `make migrate-reconcile`." in note


@pytest.mark.parametrize(
    ("call", "number", "reason"),
    [
        ("open", errno.EROFS, "Read-only file system"),
        ("open", errno.EACCES, "Permission denied"),
        ("link", errno.EIO, "Input/output error"),
    ],
)
def test_a_folder_that_cannot_hold_a_new_version_is_told_with_the_reason(
    users: Path, call: str, number: int, reason: str
) -> None:
    def at() -> int:
        with BrokenFiles(users.parent).broken() as watched:
            look("files", USERS_FILE=str(users))
        return next(
            index
            for index, it in enumerate(watched.calls)
            if it.kind == call and ".doctor." in it.path
        )

    with BrokenFiles(users.parent, at(), number).broken():
        found = look("files", USERS_FILE=str(users))
    (problem,) = told(found, "problem")
    assert f"The folder {users.parent} cannot be written: {reason}." in problem
    assert "USERS_FILE" in problem
    assert os.listdir(users.parent) == ["users.json"]


def test_whatever_the_file_system_refuses_is_told_in_a_sentence(users: Path) -> None:
    with BrokenFiles(users.parent).broken() as watched:
        look("files", USERS_FILE=str(users))
    assert len(watched.calls) > 10
    for at in range(len(watched.calls)):
        with BrokenFiles(users.parent, at, errno.EACCES).broken():
            look("files", USERS_FILE=str(users))
        for left in users.parent.glob(".doctor.*"):
            left.unlink()
    assert users.read_text() == "[]"


def test_a_file_that_is_mounted_by_itself_is_told_with_its_folder(
    users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    odd = users.with_name("a users.json")
    users.rename(odd)
    shown = str(odd).replace(" ", "\\040")
    mounts.write_text(f"36 35 98:0 /mnt1 {shown} rw,noatime master:1 - ext3 /dev/root rw\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    (problem,) = told(look("files", USERS_FILE=str(odd)), "problem")
    assert f"{odd} is mounted by itself" in problem
    assert f"Mount its folder, {odd.parent}" in problem


def test_a_full_disk_is_told_before_a_write_fails(
    users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SPARE_BYTES", shutil.disk_usage(users.parent).free * 2)
    (problem,) = told(look("files", USERS_FILE=str(users)), "problem")
    assert f"{users.parent} has " in problem
    assert "Make room" in problem


def test_a_port_is_free_in_use_by_another_or_by_this_service(
    emulators: dict[str, Emulator],
) -> None:
    port = free_port()
    assert [it.verdict for it in look("port", PORT=str(port))] == ["ok"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        (problem,) = told(look("port", PORT=str(port)), "problem")
    assert f"Port {port} is in use. End what listens there" in problem
    own = emulators["json"].url.rpartition(":")[2]
    assert told(look("port", PORT=own), "ok") == [f"This service answers on port {own}. "]
