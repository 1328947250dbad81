"""One change to a users file neither reads nor writes the other users, and is what it would be."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import files
from shared.errors import StoreBusy
from shared.model.users import User
from shared.store.json_file import editing, users_file
from shared.store.json_file.store import JsonFileStore
from shared.store.json_file.users_file import Record, Users
from shared.store.settings import StoreSettings
from tests.support.broken_files import BrokenFiles
from tests.support.stores import credentials

LAYOUTS = {
    "the old server's": lambda rows: editing.whole(rows),
    "minified": lambda rows: json.dumps(rows, separators=(",", ":")).encode(),
    "wide": lambda rows: json.dumps(rows, indent=4).encode() + b"\n \n",
    "of Windows": lambda rows: editing.whole(rows).replace(b"\n", b"\r\n") + b"\r\n",
    "a user a line": lambda rows: b"[\n" + b",\n".join(map(_line, rows)) + b"\n]\n",
}


def _line(row: Record) -> bytes:
    return json.dumps(row).encode()


_NAMES = st.sampled_from(["Ada", "", "\ud83d", 'x"}\n  {"', "\\", "Zoë", '"id": "1"'])
_IDENTITIES = st.lists(
    st.fixed_dictionaries({"issuer": st.just("g"), "subject": st.sampled_from("12")}),
    max_size=2,
    unique_by=lambda entry: entry["subject"],
)
_RECORDS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["1", "2", "3", "é", "\ud83d", 'a"b']),
        "email": st.sampled_from(["ada@example.com", "Ada@example.com", "eve@example.com", "x@y"]),
    },
    optional={
        "name": _NAMES,
        "createdAt": st.sampled_from([None, "2020", "2021"]),
        "nested": st.sampled_from([{}, {"id": "2"}, [{"id": "1", "x": []}], []]),
        "identities": _IDENTITIES,
        "pending": st.just({"operation": str(uuid.UUID(int=1))}),
    },
)


def _found(users: Users) -> tuple[object, ...]:
    return users.records, users.by_key, users.by_id, users.by_identity, users.pending


def _changes(users: Users, new: Record) -> list[tuple[Record | None, Record | None]]:
    """Name what may be done: a record and what becomes of it."""
    is_new = not (
        users_file.index(None, [new]).by_key.keys() & users.by_key.keys()
        or new["id"] in users.by_id
        or any(identity in users.by_identity for identity in users_file.identities(new))
    )
    replaced = [(record, record | {"name": "other"}) for record in users.by_id.values()]
    gone = [(record, None) for record in users.by_id.values()]
    return [*([(None, new)] if is_new else []), *replaced, *gone]


@given(records=st.lists(_RECORDS, max_size=5), new=_RECORDS, layout=st.sampled_from(list(LAYOUTS)))
def test_whatever_is_changed_all_others_stay_as_they_are(
    records: list[Record], new: Record, layout: str
) -> None:
    data = LAYOUTS[layout](records)
    read = users_file.index((1,), users_file.parse(data))
    for before, after in _changes(read, new):
        kept = [after if record is before else record for record in read.records]
        expected = [record for record in [*kept, before or after] if record is not None]
        if before is not None:
            del expected[-1]
        changed = editing.changed(read, before, after)
        assert _found(changed) == _found(users_file.index(None, expected))
        parts = editing.edited(data, read, before, after)
        if parts is not None:
            assert users_file.parse(b"".join(parts)) == expected
        if layout == "the old server's":
            is_small = not records or (after is None and len(records) == 1)
            assert is_small or (parts and b"".join(parts) == editing.whole(expected))


@pytest.mark.parametrize("number", [1, 2, 7])
def test_in_a_file_of_the_old_servers_only_the_one_record_is_written(number: int) -> None:
    records = [{"id": str(n), "email": f"{n}@example.com", "tags": [{}]} for n in range(number)]
    data = editing.whole(records)
    users = users_file.index((1,), users_file.parse(data))
    for record in users.records:
        other = record | {"password": "new"}
        parts = editing.edited(data, users, record, other)
        assert parts is not None
        assert b"".join(parts) == data.replace(editing._entry(record), editing._entry(other))
        assert len(parts[1]) < 200
        gone = editing.edited(data, users, record, None)
        assert (gone is None) == (number == 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where two users are."""
    file = tmp_path / "users.json"
    rows = [{"id": f"u{n}", "email": f"user{n}@example.com", "password": "x"} for n in range(2)]
    file.write_text(json.dumps(rows, indent=2))
    file.chmod(0o600)
    return file


def _store(path: Path, *, is_fallback: bool = False) -> JsonFileStore:
    return JsonFileStore(StoreSettings(users_file=path), is_fallback=is_fallback)


def _user(name: str) -> User:
    return User(id=name, email=f"{name}@example.com", name=None, provider="local")


def _reads(path: Path, disk: BrokenFiles) -> int:
    return sum(call.kind == "open" and call.path == str(path) for call in disk.calls)


def test_one_reading_serves_all_who_wait_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, everybody = _store(path), threading.Barrier(8)
    real, read = files.read, []

    def slow(file: Path) -> Any:
        read.append(file)
        done.wait(0.2)
        return real(file)

    done = threading.Event()
    monkeypatch.setattr(files, "read", slow)
    found = []

    def log_in() -> None:
        everybody.wait(10)
        found.append(store.credentials("user1@example.com"))

    threads = [threading.Thread(target=log_in) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [path]
    assert [one and one.user.id for one in found] == ["u1"] * 8


def test_what_this_process_has_written_is_known_without_reading_it(path: Path) -> None:
    store = _store(path)
    assert credentials(store, "user0@example.com")
    disk = BrokenFiles(path.parent)
    with disk.broken():
        for number in range(2, 5):
            store.create_user(_user(f"user{number}"), "hash")
            opened = _reads(path, disk)
            assert credentials(store, f"user{number}@example.com")
            assert store.replace_password_hash(f"user{number}", "hash", "new")
            found = credentials(store, f"user{number}@example.com")
            assert found is not None
            assert found.password_hash == "new"
            assert _reads(path, disk) == opened + 1, "the change copies the others"
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=2)
    assert _store(path)._read().records == store._read().records


def test_who_writes_into_the_file_without_its_lock_loses_nothing(path: Path) -> None:
    """The old server knows no lock; what it has just written is not written over."""
    store = _store(path, is_fallback=True)
    store.create_user(_user("ada"), "hash")
    (operation,) = store.pending()
    theirs = json.dumps([*json.loads(path.read_text()), {"id": "n", "email": "new@example.com"}])
    with pytest.raises(StoreBusy, match="changed by another program"):
        store.resolve(operation, lambda _: path.write_text(theirs))
    assert path.read_text() == theirs
    assert store.resolve(operation, lambda _: True)
    assert [record["id"] for record in json.loads(path.read_text())] == ["u0", "u1", "n"]


def test_a_file_that_was_touched_after_a_write_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(path)
    real = files.replacing.__wrapped__  # type: ignore[attr-defined]  # the generator in it
    rows = [{"id": "n", "email": "new@example.com"}]

    def replacing(file: Path) -> Any:
        yield from real(file)
        path.write_text(json.dumps(rows))

    monkeypatch.setattr(files, "replacing", contextmanager(replacing))
    store.create_user(_user("ada"), "hash")
    assert store.credentials("ada@example.com") is None
    assert store.credentials("new@example.com")
