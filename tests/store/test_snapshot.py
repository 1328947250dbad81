"""The snapshot as a file: nothing of it is believed that is not ours."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StoreUnreachable
from shared.store import snapshot as snapshot_module
from shared.store.snapshot import REFUSED_SECONDS, SKEW_SECONDS, NoSnapshot, Snapshot
from tests.support.broken_files import BrokenFiles
from tests.support.emulator import SECRET
from tests.support.stores import NOW
from tests.support.transfers import HASH

AGE = 3600.0
OTHER = "another secret that is long enough for HMAC"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the snapshot is."""
    return tmp_path / "users.json.snapshot"


def _snapshot(path: Path, *secrets: str, database: str = "host/name") -> Snapshot:
    return Snapshot(path, secrets or (SECRET,), database)


def _rows(*keys: str) -> list[list[Any]]:
    """Give users with these email keys, in the order of a snapshot."""
    ordered = sorted(keys, key=str.encode)
    return [[key, str(uuid.uuid4()), key, None, "local", 0, None, HASH] for key in ordered]


def _write(path: Path, *keys: str, taken_at: float = NOW) -> Snapshot:
    snapshot = _snapshot(path)
    snapshot.write(_rows(*keys), taken_at=taken_at)
    return snapshot


def _find(snapshot: Snapshot, key: str, now: float = NOW) -> str | None:
    found = snapshot.find(key, now, AGE)
    return found.user.email if found else None


# What it holds


def test_a_line_that_is_too_long_hides_nobody_else(path: Path) -> None:
    rows = _rows("a@example.com", "b@example.com", "c@example.com", "d@example.com")
    rows[1][3] = "x" * 8000
    rows[2][3] = "x" * 8200
    snapshot = _snapshot(path)
    snapshot.write(rows, taken_at=NOW)
    found = [_find(snapshot, row[0]) for row in rows]
    assert found == ["a@example.com", "b@example.com", None, "d@example.com"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_it_is_searched_to_its_ends(path: Path, count: int) -> None:
    keys = [f"user{random.Random(number).random()}@example.com" for number in range(count)]
    snapshot = _write(path, *keys)
    for key in keys:
        assert _find(snapshot, key) == key
    for key in ("", "a", "user", "user0.5", "~"):
        assert _find(snapshot, key) is None


def test_it_is_private_whatever_the_umask_says(path: Path) -> None:
    before = os.umask(0)
    try:
        _write(path, "ada@example.com")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_takes_no_memory(path: Path) -> None:
    keys = [f"user{number:06}@example.com" for number in range(100_000)]
    snapshot = _write(path, *keys)
    assert path.stat().st_size > 15_000_000
    tracemalloc.start()
    assert _find(snapshot, keys[7]) == keys[7]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_500_000, "what verifies it reads a piece at a time"


# Whom it does not believe


def test_a_file_that_is_not_there_is_told_from_one_that_is_refused(path: Path) -> None:
    with pytest.raises(NoSnapshot):
        _find(_snapshot(path), "ada@example.com")


@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo", "folder"])
def test_only_a_regular_file_is_read(path: Path, tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = tmp_path / "target"
        if kind == "symlink":
            _write(target, "ada@example.com")
        path.symlink_to(target)
    with pytest.raises(StoreUnreachable, match=r"not a regular file|symbolic link"):
        _find(_snapshot(path), "ada@example.com")


def test_no_byte_can_be_changed(path: Path) -> None:
    _write(path, "ada@example.com", "bob@example.com")
    sound = path.read_bytes()
    for position in range(0, len(sound), 3):
        changed = bytearray(sound)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(StoreUnreachable, match="signature"):
            _find(_snapshot(path), "ada@example.com")


def test_nothing_can_be_cut_off_or_put_in(path: Path, tmp_path: Path) -> None:
    _write(path, "ada@example.com", "bob@example.com")
    lines = path.read_bytes().splitlines(keepends=True)
    other = tmp_path / "other"
    _write(other, "eve@example.com", taken_at=NOW + 1)
    spliced = other.read_bytes().splitlines(keepends=True)
    forged = [lines[:number] for number in range(len(lines))]
    forged += [lines[:number] + lines[number + 1 :] for number in range(len(lines))]
    forged += [lines[:1] + spliced[1:2] + lines[1:], spliced[:1] + lines[1:], lines + lines]
    forged += [lines[:-1] + spliced[-1:], [b"".join(lines)[:-1]], [b"\n"], [b"0" * 64 + b"\n"]]
    for content in forged:
        path.write_bytes(b"".join(content))
        with pytest.raises(StoreUnreachable, match="not believed"):
            _find(_snapshot(path), "ada@example.com")


def test_a_file_that_is_not_believed_is_not_read_again_by_each_login(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = _snapshot(path, OTHER)
    _write(path, "ada@example.com")
    reads: list[int] = []
    monkeypatch.setattr(os, "pread", _noting(reads))
    began = time.monotonic()
    for seconds, is_read in (
        (0, True), (1, False), (REFUSED_SECONDS - 1, False), (REFUSED_SECONDS, True),
    ):  # fmt: skip
        reads.clear()
        monkeypatch.setattr(time, "monotonic", lambda at=began + seconds: at)
        with pytest.raises(StoreUnreachable, match="signature"):
            _find(stranger, "ada@example.com")
        assert bool(reads) == is_read
    _snapshot(path, OTHER).write(_rows("eve@example.com"), taken_at=NOW)
    assert _find(stranger, "eve@example.com", NOW - 8), "what was changed is read at once"


def _noting(reads: list[int]) -> Callable[[int, int, int], bytes]:
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        reads.append(offset)
        return real(descriptor, length, offset)

    return pread


def test_another_version_s_format_is_not_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(snapshot_module, "_FORMAT", 1)
        snapshot = _write(path, "ada@example.com")
    with pytest.raises(StoreUnreachable, match="another version's"):
        _find(snapshot, "ada@example.com")
    assert snapshot.taken_at() is None, "so that it is taken anew at once"


def test_a_disk_that_cannot_be_read_is_no_answer_and_the_next_read_is(path: Path) -> None:
    keys = [f"user{number}@example.com" for number in range(500)]
    _write(path, *keys)
    sound = BrokenFiles(path.parent)
    with sound.broken():
        assert _find(_snapshot(path), keys[7])
    assert {call.kind for call in sound.calls} >= {"stat", "open", "fstat", "pread"}
    for at in range(len(sound.calls)):
        snapshot = _snapshot(path)
        disk = BrokenFiles(path.parent, at, errno.EIO)
        with (
            disk.broken(),
            pytest.raises(StoreUnreachable, match="cannot be read: Input/output error"),
        ):
            _find(snapshot, keys[7])
        assert _find(snapshot, keys[7])
        snapshot.close()


@pytest.mark.parametrize("rest", ["nothing", "half", "other bytes"])
def test_a_file_that_is_overwritten_while_it_is_read_is_no_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    keys = [f"user{number}@example.com" for number in range(500)]
    _write(path, *keys)
    sound = path.read_bytes()
    changed = {"nothing": b"", "half": sound[: len(sound) // 2], "other bytes": b"?" * len(sound)}
    reads: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", _noting(reads))
        assert _find(_snapshot(path), keys[-1])
    for number in range(len(reads)):
        path.write_bytes(sound)
        snapshot = _snapshot(path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", _overwriting(path, changed[rest], number))
            with pytest.raises(StoreUnreachable, match=r"signature|being changed"):
                _find(snapshot, keys[-1])
        snapshot.close()


def _overwriting(path: Path, content: bytes, number: int) -> Callable[[int, int, int], bytes]:
    """Read as ever, but overwrite the file before the read of that number, from 0."""
    real, numbers = os.pread, itertools.count()

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        if next(numbers) == number:
            path.write_bytes(content)
        return real(descriptor, length, offset)

    return pread


def test_another_secret_or_database_is_not_believed_and_a_rotated_secret_is(path: Path) -> None:
    _write(path, "ada@example.com")
    for stranger in (_snapshot(path, OTHER), _snapshot(path, SECRET, database="host/other")):
        with pytest.raises(StoreUnreachable, match="not ours, or not for this database"):
            _find(stranger, "ada@example.com")
    assert _find(_snapshot(path, OTHER, SECRET), "ada@example.com")


@pytest.mark.parametrize(
    ("age", "is_believed"),
    [
        (0, True),
        (AGE - 60, True),
        (AGE + 1, False),
        (-SKEW_SECONDS, True),
        (-SKEW_SECONDS - 1, False),
    ],
)
def test_its_age_is_limited_also_where_the_clock_was_moved(
    path: Path, age: float, is_believed: bool
) -> None:
    snapshot = _write(path, "ada@example.com")
    if is_believed:
        assert _find(snapshot, "ada@example.com", NOW + age)
    else:
        with pytest.raises(StoreUnreachable, match="age"):
            _find(snapshot, "ada@example.com", NOW + age)


def test_a_user_who_was_changed_is_not_given_until_a_later_snapshot(path: Path) -> None:
    snapshot = _write(path, "ada@example.com", "bob@example.com")
    found = snapshot.find("ada@example.com", NOW, AGE)
    assert found is not None
    snapshot.invalidate(found.user.id)
    assert _find(snapshot, "ada@example.com") is None
    assert _find(snapshot, "bob@example.com")
    rows = [["ada@example.com", found.user.id, "ada@example.com", None, "local", 0, None, HASH]]
    snapshot.write(rows, taken_at=NOW + 1)
    assert _find(snapshot, "ada@example.com", NOW + 1)


def test_a_change_is_not_in_the_snapshot_of_another_process_because_the_clock_was_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = _write(path, "ada@example.com")
    found = _snapshot(path).find("ada@example.com", NOW, AGE)
    assert found is not None
    monotonic = time.monotonic
    monkeypatch.setattr(time, "time", lambda: NOW + 1200)
    snapshot.invalidate(found.user.id)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 1500)
    assert _find(snapshot, "ada@example.com", NOW + 900) is None


def test_what_the_file_says_of_its_time_is_told_unverified(path: Path) -> None:
    assert _snapshot(path).taken_at() is None
    snapshot = _write(path, "ada@example.com")
    assert snapshot.taken_at() == NOW
    for content in (b"", b"{", b"[]", b'{"taken_at": "x"}', b"\xff", b"7"):
        path.write_bytes(content)
        assert snapshot.taken_at() is None
    for number in ("NaN", "Infinity", "-1", "1e12", "1" * 150):
        path.write_text(f'{{"format": {snapshot_module._FORMAT}, "taken_at": {number}}}')
        assert snapshot.taken_at() is None, "it is no date"


# How it is replaced


def test_a_new_file_is_seen_at_once_and_the_old_ones_descriptor_is_closed(path: Path) -> None:
    snapshot = _write(path, "ada@example.com")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(10):
        _write(path, f"user{number}@example.com")
        assert _find(snapshot, f"user{number}@example.com")
        assert _find(snapshot, "ada@example.com") is None
    snapshot.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_whoever_reads_while_it_is_replaced_sees_the_old_or_the_new(path: Path) -> None:
    snapshot = _write(path, "ada@example.com", "user0@example.com")
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            assert _find(snapshot, "ada@example.com")
            count += 1
        return count

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        for number in range(50):
            _write(path, "ada@example.com", f"user{number}@example.com")
        done.set()
        assert all(reader.result() for reader in readers)
    snapshot.close()
