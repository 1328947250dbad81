"""Mail of development: files that mail programs open, and a link in the log."""

from __future__ import annotations

import email
import email.policy
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shared import files
from shared.environment import Environment
from shared.mail import folder
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, Refused, Transport, open_transport
from tests.support.mail_servers import LINK, MESSAGE


@pytest.fixture
def transport(tmp_path: Path) -> Transport:
    """One that writes beside a file of users."""
    env = Environment({"USERS_FILE": str(tmp_path / "users.json")})
    return open_transport(MailSettings.read(env))


def _send(transport: Transport, message: Any = MESSAGE, seconds: float = 10) -> None:
    transport.send(message, time.monotonic() + seconds)


def test_a_mail_is_a_private_file_and_its_link_is_in_the_log(
    transport: Transport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _send(transport)
    path = tmp_path / "mail" / f"{MESSAGE.id}.eml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    data = path.read_bytes()
    assert LINK.encode() in data, "a person can read it, too"
    found = email.message_from_bytes(data, policy=email.policy.default)
    assert found["To"] == MESSAGE.recipient
    assert found["From"] == "AI-Coder <no-reply@localhost>"
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["message"] == f"A mail is in {path}"
    assert (told["kind"], told["link"]) == (MESSAGE.kind, LINK)
    assert MESSAGE.recipient not in line


def test_a_notice_has_no_link_to_log(
    transport: Transport, capsys: pytest.CaptureFixture[str]
) -> None:
    _send(transport, MESSAGE._replace(text="Changed.\n\nhttps://app.example.com\n"))
    assert "link" not in json.loads(capsys.readouterr().out)


def test_a_mail_that_is_sent_twice_is_one_file(transport: Transport, tmp_path: Path) -> None:
    _send(transport)
    _send(transport, MESSAGE._replace(subject="Again"))
    (path,) = (tmp_path / "mail").iterdir()
    assert b"Subject: Again\r\n" in path.read_bytes()


def test_the_newest_files_are_kept_and_nothing_else_is_touched(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MAX_FILES", 3)
    place = tmp_path / "mail"
    place.mkdir()
    (place / "notes.txt").touch()
    for number in range(6):
        path = place / f"{number}.eml"
        path.touch()
        os.utime(path, (number, number))
    _send(transport)
    assert {path.name for path in place.iterdir()} == {
        "4.eml", "5.eml", f"{MESSAGE.id}.eml", "notes.txt",
    }  # fmt: skip


def test_many_at_once_are_all_written(transport: Transport, tmp_path: Path) -> None:
    messages = [MESSAGE._replace(id=f"{number}") for number in range(20)]
    threads = [threading.Thread(target=_send, args=(transport, it)) for it in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "mail").iterdir())) == 20


def test_an_address_that_is_none_is_refused_here_as_everywhere(transport: Transport) -> None:
    with pytest.raises(Refused) as caught:
        _send(transport, MESSAGE._replace(recipient="bob.canary"))
    assert "canary" not in repr(caught.value)


def test_a_folder_that_cannot_be_written_is_told_and_tried_again(
    transport: Transport, tmp_path: Path
) -> None:
    (tmp_path / "mail").write_text("a file where a folder should be")
    with pytest.raises(NotDelivered, match=r"Not a directory|File exists") as caught:
        _send(transport)
    assert str(tmp_path) in caught.value.cause
    assert "canary" not in repr(caught.value)


def test_a_folder_that_somebody_holds_ends_with_the_deadline(
    transport: Transport, tmp_path: Path
) -> None:
    with files.locked(tmp_path / "mail", 1), pytest.raises(NotDelivered):
        _send(transport, seconds=0.2)
