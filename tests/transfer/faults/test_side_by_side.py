"""Imports and rollbacks at once come one after the other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shared.errors import StoreUnavailable
from shared.transfer import rollback, staging
from tests.support.commands import Command, Ended
from tests.support.import_faults import APPLY, EVERYTHING, USERS, locked, state, url, waiting, write
from tests.support.interceptor import Interceptor, Message
from tests.support.transfers import Target, finish, user
from tests.support.waiting import until


def _held_at_its_commit(
    interceptor: Interceptor, target: Target, users_file: Path, *arguments: str
) -> tuple[Command, threading.Event]:
    """Start a command, and hold it back at its COMMIT until the event is set."""
    reached, go = threading.Event(), threading.Event()

    def watch(message: Message) -> None:
        if message.is_commit:
            reached.set()
            go.wait(30)

    interceptor.watch = watch
    command = Command(interceptor.url(target.name), users_file, *arguments)
    until(reached.is_set)
    return command, go


def _both(
    interceptor: Interceptor,
    target: Target,
    first: tuple[Path, tuple[str, ...]],
    second: tuple[Path, tuple[str, ...]],
) -> tuple[Ended, Ended]:
    """Start the second command while the first one is at its COMMIT, and see that it waits."""
    ahead, go = _held_at_its_commit(interceptor, target, first[0], *first[1])
    try:
        behind = Command(url(target), second[0], *second[1])
        until(lambda: waiting(target))
    finally:
        go.set()
    return ahead.wait(), behind.wait()


def test_of_two_applies_of_one_source_the_second_waits_and_has_nothing_to_do(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    first, second = _both(interceptor, target, (users_file, APPLY), (users_file, APPLY))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert "Nothing to write" in second.output
    assert state(target) == EVERYTHING


def test_of_two_applies_of_two_sources_each_brings_its_own(
    target: Target, interceptor: Interceptor, users_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "users.json", [user(n) for n in range(200, 500)])
    first, second = _both(interceptor, target, (users_file, APPLY), (other, APPLY))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert state(target) == [[500, 500, 2, 500]]
    counts = target.run("SELECT counts->>'new', counts->>'identical' FROM import_batches")
    assert counts == [["300", "0"], ["200", "100"]]


def test_an_apply_and_a_rollback_at_once_come_one_after_the_other(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    """Whom the rollback removed can come again."""
    target.apply([user(1), user(USERS + 1)], batch_id="first")
    back = ("rollback", "first", "--yes")
    first, second = _both(interceptor, target, (users_file, APPLY), (users_file, back))
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert state(target)[0][0] == USERS - 1
    first, second = _both(
        interceptor, target,
        (users_file, ("rollback", _batches(target)[-1], "--yes")), (users_file, APPLY),
    )  # fmt: skip
    assert (first.code, second.code) == (0, 0), (first.error, second.error)
    assert state(target)[0][0] == USERS


def _batches(target: Target) -> list[str]:
    return [row[0] for row in target.run("SELECT id FROM import_batches ORDER BY number")]


def test_who_waits_too_long_for_another_import_says_so_and_changes_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied, _ = target.apply([user(1)])
    before = target.dump()
    monkeypatch.setattr(staging, "LOCK_SECONDS", 0.2)
    with locked(target, f"SELECT pg_advisory_xact_lock({staging.LOCK_KEY})"):
        with pytest.raises(StoreUnavailable, match="another import or rollback"):
            target.apply([user(1), user(2)])
        with pytest.raises(StoreUnavailable, match="another import or rollback"):
            finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.dump() == before
    target.apply([user(1), user(2)])
