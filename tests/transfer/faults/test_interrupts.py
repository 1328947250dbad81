"""An interrupted import says whether anything was changed."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.transfer import staging
from tests.support.commands import Command, Stopped
from tests.support.import_faults import (
    APPLY,
    EVERYTHING,
    NOTHING,
    Nth,
    check_files,
    forget,
    locked,
    sessions_end,
    signalled,
    snapshot,
    state,
    url,
    waiting,
)
from tests.support.interceptor import Interceptor, Message
from tests.support.transfers import Target
from tests.support.waiting import until

_MOMENTS: dict[str, Callable[[Message], object]] = {
    "connecting": Nth(1),
    "staging": lambda message: message.sql.startswith("COPY"),
    "copying": lambda message: message.kind == "d",
    "comparing": lambda message: message.sql.startswith("ANALYZE"),
    "writing": lambda message: "INSERT INTO users" in message.sql,
    "recording": lambda message: "INSERT INTO import_batches" in message.sql,
    "reporting": lambda message: message.sql.startswith(f"FETCH {staging.FETCH_BLOCKS} "),
}


@pytest.mark.parametrize(
    ("moment", "number"), [*zip(_MOMENTS, itertools.cycle([signal.SIGINT, signal.SIGTERM]))]
)
def test_an_interrupted_apply_says_that_nothing_was_changed_and_nothing_was(
    target: Target,
    interceptor: Interceptor,
    users_file: Path,
    moment: str,
    number: signal.Signals,
) -> None:
    before = snapshot(users_file.parent)
    ended = signalled(interceptor, target, users_file, APPLY, number, _MOMENTS[moment])
    assert ended.code == 130
    assert ended.error.splitlines()[-1] == "Interrupted. Nothing was changed."
    sessions_end(target)
    assert state(target) == NOTHING
    assert snapshot(users_file.parent).keys() == before.keys()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_apply_that_waits_for_another_one_can_be_interrupted(
    target: Target, users_file: Path, number: signal.Signals
) -> None:
    with locked(target, f"SELECT pg_advisory_xact_lock({staging.LOCK_KEY})"):
        command = Command(url(target), users_file, *APPLY)
        until(lambda: waiting(target))
        command.process.send_signal(number)
        ended = command.wait()
    assert ended.code == 130
    assert ended.error.splitlines()[-1] == "Interrupted. Nothing was changed."
    assert state(target) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_the_commit_comes_too_late(
    target: Target, interceptor: Interceptor, users_file: Path, number: signal.Signals
) -> None:
    ended = signalled(
        interceptor, target, users_file, APPLY, number, lambda message: message.is_commit
    )
    assert ended.code == 0
    assert "Written and verified" in ended.output
    assert state(target) == EVERYTHING
    assert len(check_files(users_file)) == 2


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.long)])
def test_an_apply_interrupted_at_a_line_ends_before_or_after_but_not_between(
    target: Target, users_file: Path, count: int
) -> None:
    """Interrupted where it writes, syncs and names its files, and where it commits."""
    with Stopped(signal.SIGINT, url(target), users_file, *APPLY) as stopped:
        _, last = stopped.at(0)
        codes = []
        for line in [*range(1, last, max(1, last // count)), *range(last - 8, last + 1)]:
            forget(target, users_file)
            code, _ = stopped.at(line)
            sessions_end(target)
            codes.append(code)
            names = [name for name in check_files(users_file) if not name.endswith(".tmp")]
            if code == 130:
                assert (state(target), names) == (NOTHING, []), line
            else:
                assert (code, state(target), len(names)) == (0, EVERYTHING, 2), line
        assert set(codes) == {0, 130}
