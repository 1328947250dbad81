"""An import whose connection is lost, at its COMMIT or before, tells the truth of what it did."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.errors import TransferRefused
from shared.transfer import importing, staging, writing
from shared.transfer.steps import Ready
from tests.support.commands import Command, Ended
from tests.support.import_faults import (
    APPLY,
    EVERYTHING,
    NOTHING,
    TERMINATE,
    check_files,
    is_brought_by_the_next,
    is_committed,
    locked,
    run_watched,
    state,
    url,
    waiting,
)
from tests.support.interceptor import Interceptor, Message
from tests.support.transfers import Target, finish, source_of, user
from tests.support.waiting import until


def _ended_with_nothing(ended: Ended, target: Target, users_file: Path) -> None:
    assert ended.code == 1, ended
    assert state(target) == NOTHING
    assert check_files(users_file) == []
    assert not is_brought_by_the_next(target, users_file)


def test_a_backend_that_is_killed_during_the_copy_leaves_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = run_watched(
        interceptor, target, users_file,
        lambda message: _terminate(target) if message.kind == "d" else None,
    )  # fmt: skip
    assert "Database error" in ended.error
    assert ended.error.endswith("Nothing was changed.\n")
    _ended_with_nothing(ended, target, users_file)


def _terminate(target: Target) -> object:
    """Kill every backend, and forward the message all the same."""
    target.run(TERMINATE)
    return None


def test_a_backend_that_is_killed_during_the_write_leaves_nothing(
    target: Target, users_file: Path
) -> None:
    with locked(target, "LOCK TABLE users IN SHARE MODE"):
        command = Command(url(target), users_file, *APPLY)
        until(lambda: waiting(target))
        target.run(f"{TERMINATE} AND wait_event_type = 'Lock'")
        ended = command.wait()
    assert "Database error" in ended.error
    assert ended.error.endswith("Nothing was changed.\n")
    _ended_with_nothing(ended, target, users_file)


def test_a_backend_that_is_killed_before_the_commit_leaves_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = run_watched(
        interceptor,
        target,
        users_file,
        lambda message: _terminate(target) if message.is_commit else None,
    )
    assert ended.error.endswith("lost during the COMMIT; nothing was written.\n")
    _ended_with_nothing(ended, target, users_file)


def test_an_apply_that_falls_silent_does_not_keep_everyone_out(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a laptop is closed while the table is locked: the server undoes it by itself."""
    monkeypatch.setattr(staging, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", 1)
    silent = importing.apply(target.database, source_of([user(1)]), batch_id="first", run_by="test")
    assert any(isinstance(event, Ready) for event in silent)
    target.run("INSERT INTO users (email) VALUES ('ada@example.com')")
    with pytest.raises(TransferRefused, match="lost during the COMMIT; nothing was written"):
        finish(silent)
    assert state(target) == [[1, 1, 0, 0]]


def test_a_commit_that_never_reached_the_server_is_said_to_have_written_nothing(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = run_watched(interceptor, target, users_file, lambda message: message.is_commit)
    assert ended.error.endswith("lost during the COMMIT; nothing was written.\n")
    _ended_with_nothing(ended, target, users_file)


def test_a_commit_whose_answer_is_lost_is_found_out_to_be_done(
    target: Target, interceptor: Interceptor, users_file: Path
) -> None:
    ended = run_watched(interceptor, target, users_file, is_committed)
    assert ended.code == 0, ended.error
    assert "Written and verified" in ended.output
    assert state(target) == EVERYTHING
    assert len(check_files(users_file)) == 2
    assert is_brought_by_the_next(target, users_file)


@pytest.mark.parametrize("is_away", [True, False])
def test_a_commit_of_which_nobody_can_be_asked_is_not_said_to_have_done_nothing(
    target: Target, interceptor: Interceptor, users_file: Path, *, is_away: bool
) -> None:
    """The exit code is one of its own, and the report stays, which names the batch to ask for.

    The server may also be there, and read-only by then.
    """
    read_only = f"ALTER DATABASE {target.name} {{}} default_transaction_read_only"

    def watch(message: Message) -> bool:
        if message.is_committed and is_away:
            interceptor.is_open = False
        elif message.is_committed:
            target.run(f"{read_only.format('SET')} = on")
        return message.is_committed

    ended = run_watched(interceptor, target, users_file, watch)
    target.run(read_only.format("RESET"))
    assert ended.code == 6
    assert "`python -m shared.transfer status` shows the outcome" in ended.error
    assert "othing was" not in ended.error
    assert state(target) == EVERYTHING
    assert len(check_files(users_file)) == 2
    assert is_brought_by_the_next(target, users_file)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_rollback_whose_commit_is_lost_says_what_became_of_it(
    target: Target, interceptor: Interceptor, users_file: Path, *, is_done: bool
) -> None:
    applied, _ = target.apply([user(1), user(2)])
    ended = run_watched(
        interceptor, target, users_file,
        is_committed if is_done else lambda message: message.is_commit,
        "rollback", str(applied.batch), "--yes",
    )  # fmt: skip
    assert ended.code == (0 if is_done else 1)
    assert len(target.users()) == (0 if is_done else 2)
    if not is_done:
        assert "nothing was written" in ended.error


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("arguments", [APPLY, ("rollback", "first", "--yes")])
def test_who_cannot_be_shown_what_was_written_is_not_told_that_nothing_was(
    target: Target,
    interceptor: Interceptor,
    users_file: Path,
    arguments: tuple[str, ...],
    as_json: list[str],
) -> None:
    """Whoever read standard output goes away at the COMMIT."""
    if arguments != APPLY:
        target.apply([user(1), user(2)], batch_id="first")
    reader, writer = os.pipe()

    def watch(message: Message) -> None:
        if message.is_committed:
            os.close(reader)

    interceptor.watch = watch
    url = interceptor.url(target.name)
    ended = Command(url, users_file, *arguments, *as_json, stdout=writer).wait()
    os.close(writer)
    what = "import" if arguments == APPLY else "rollback"
    assert ended.code == 1
    assert ended.error.endswith(f"Broken pipe. The {what} was done.\n")
    assert state(target) == (EVERYTHING if arguments == APPLY else [[0, 0, 1, 0]])
