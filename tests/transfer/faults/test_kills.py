"""An import that is killed leaves everything or nothing, and the next one works at once."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.commands import Command, Stopped, run
from tests.support.import_faults import (
    APPLY,
    AT_ONCE,
    EVERYTHING,
    NOTHING,
    Nth,
    check_files,
    forget,
    is_brought_by_the_next,
    is_committed,
    locked,
    sessions_end,
    signalled,
    state,
    url,
    waiting,
)
from tests.support.interceptor import Interceptor
from tests.support.transfers import Target
from tests.support.waiting import until


@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.long)])
def test_a_killed_apply_leaves_everything_or_nothing_and_the_next_one_works_at_once(
    target: Target, interceptor: Interceptor, users_file: Path, count: int
) -> None:
    """Killed at so many requests between the first connection and the COMMIT, and after it."""
    requests = Nth()
    interceptor.watch = requests
    assert run(interceptor.url(target.name), users_file, *APPLY).code == 0
    last = requests.count
    points = [*range(1, last - 1, max(1, last // count)), last - 1, last]
    assert len(points) >= min(count, last)
    for point in points:
        forget(target, users_file)
        signalled(interceptor, target, users_file, APPLY, signal.SIGKILL, Nth(point))
        assert not is_brought_by_the_next(target, users_file), point
    forget(target, users_file)
    signalled(interceptor, target, users_file, APPLY, signal.SIGKILL, is_committed)
    assert is_brought_by_the_next(target, users_file)


def test_a_killed_apply_that_waited_on_the_server_is_ended_there_within_seconds(
    target: Target, users_file: Path
) -> None:
    """Its statement goes on without it, and with it its locks, until the server looks for it."""
    with locked(target, "LOCK TABLE users IN SHARE MODE"):
        command = Command(url(target), users_file, *APPLY)
        until(lambda: waiting(target))
        command.process.kill()
        command.wait()
        started = time.monotonic()
        until(lambda: not waiting(target))
        assert time.monotonic() - started < AT_ONCE
    assert state(target) == NOTHING
    assert not is_brought_by_the_next(target, users_file)


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.long)])
def test_an_apply_killed_at_a_line_leaves_real_names_to_whole_files_only(
    target: Target, users_file: Path, count: int
) -> None:
    """Killed where it writes, syncs and names its files, and where it commits."""
    with Stopped(signal.SIGKILL, url(target), users_file, *APPLY) as stopped:
        code, last = stopped.at(0)
        assert (code, state(target)) == (0, EVERYTHING)
        assert len(check_files(users_file)) == 2
        seen = []
        for line in [*range(1, last, max(1, last // count)), *range(last - 3, last + 1)]:
            forget(target, users_file)
            assert stopped.at(line) == (-signal.SIGKILL, line)
            sessions_end(target)
            seen.append(state(target))
            left = check_files(users_file)
            if seen[-1] == EVERYTHING:
                assert sum(not name.endswith(".tmp") for name in left) == 2
            code, _ = stopped.at(0)
            assert (code, state(target)) == (0, EVERYTHING)
            new = sorted(set(check_files(users_file)) - set(left))
            assert len(new) == (2 if seen[-1] == NOTHING else 0)
        assert all(state in (NOTHING, EVERYTHING) for state in seen)
        assert sorted(seen) == seen
        assert {str(state) for state in seen} == {str(NOTHING), str(EVERYTHING)}
