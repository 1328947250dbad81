"""The folder of mails beside a file of users: what in it is no mail, and disks that fail."""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
import uuid
from pathlib import Path

import pytest

from shared.errors import StoreUnavailable
from shared.model.mails import LEASE_SECONDS, Mail
from shared.model.users import User
from shared.store.contract import Store
from shared.store.json_file.outbox import OutboxFolder
from tests.support.broken_files import BrokenFiles
from tests.support.stores import CLIENT, opened_store, stored

ADA = "ada@example.com"


def _mail() -> Mail:
    ids = str(uuid.uuid4()), str(uuid.uuid4())
    return Mail(ids[0], "verification", ADA, ids[1], 0, "0" * 32, None, None, time.time(), 0)


@pytest.fixture
def outbox(tmp_path: Path) -> OutboxFolder:
    return OutboxFolder(tmp_path / "outbox")


def test_what_is_no_mail_is_left_alone_and_holds_up_none(
    outbox: OutboxFolder, tmp_path: Path
) -> None:
    mail = _mail()
    outbox.put(mail)
    folder = tmp_path / "outbox"
    text = (folder / f"{mail.id}.json").read_text()
    members = json.loads(text)
    others = {
        "half.json": text[: len(text) // 2],
        "empty.json": "",
        "list.json": "[]",
        f"{mail.id} (copy).json": text,
        "notes.json": json.dumps(members | {"id": "notes"}),
        f"{uuid.uuid4()}.json": json.dumps(members | {"kind": 7}),
        "text.txt": "",
    }
    for name, content in others.items():
        (folder / name).write_text(content)
    (folder / "folder.json").mkdir()
    (folder / "link.json").symlink_to(f"{mail.id}.json")
    assert [found.id for found in outbox.lease(10)] == [mail.id]
    assert outbox.status().waiting == 1
    outbox.postpone(mail.id, 0)
    assert [found.tries for found in outbox.lease(10)] == [1]
    outbox.forget(mail.user_id)
    assert outbox.status() == (0, 0)
    left = {path.name for path in folder.iterdir()}
    assert left == {*others, "folder.json", "link.json", "outbox.lock"}


def test_what_a_killed_writer_left_is_deleted_and_what_is_being_written_is_not(
    outbox: OutboxFolder, tmp_path: Path
) -> None:
    outbox.put(_mail())
    old, new = (tmp_path / "outbox" / f"{name}.json.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_text('{"recipient": "ada@ex')
    long_ago = time.time() - LEASE_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    assert len(outbox.lease(10)) == 1
    assert (old.exists(), new.exists()) == (False, True)


def _user_with_a_mail(store: Store) -> User:
    user = store.create_user(User(str(uuid.uuid4()), ADA, None, "local"), "hash")
    store.mail.ask_for_mail("password_reset", ADA, locale=None, client=CLIENT)
    return user


def test_a_deletion_on_a_disk_that_fails_takes_no_mail_from_a_user_who_stays(
    tmp_path: Path,
) -> None:
    """Whichever call fails from then on: who is gone was told so, and who stays lacks nothing."""
    seen = set()
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        path = str(folder / "users.json")
        store = opened_store(ENVIRONMENT="development", USE_DATABASE="false", USERS_FILE=path)
        user = _user_with_a_mail(store)
        attempt, found = stored(store, user)
        with BrokenFiles(folder, at, errno.EIO, lasting=True).broken() as disk:
            try:
                said = store.delete_user(attempt, found)
            except StoreUnavailable:
                said = False
        is_gone = store.user(user.id) is None
        kinds = {mail.kind for mail in store.mail.lease(10)}
        assert "account_deleted" in kinds if is_gone else "password_reset" in kinds, at
        assert is_gone or not said, at
        seen.add((said, is_gone))
        if len(disk.calls) < at:
            break
    assert kinds == {"account_deleted"}
    assert {(False, False), (True, True)} <= seen
