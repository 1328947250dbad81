"""Whose sessions an import or a rollback ends is on the list of revocations once it is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.model.users import User
from shared.revocations import url
from shared.revocations.redis_list import Revocations
from shared.transfer import announcing
from tests.support import commands
from tests.support.commands import Ended
from tests.support.emulator import SECRET, environment
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.stores import session_of
from tests.support.transfers import HASH, Target, user

OTHER_HASH = HASH[:-1] + "i"
NOT_TOLD = "Redis was not told whose sessions have ended, so they may go on for ten minutes: "
Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def redis(redis_program: str) -> Iterator[RedisServer]:
    with running_redis(redis_program) as running:
        yield running


@pytest.fixture
def run(redis: RedisServer, target: Target, tmp_path: Path) -> Run:
    """Run the command, on rows where there are some, and give how it ended."""
    path = tmp_path / "users.json"
    variables = {
        "DATABASE_URL": target.server.url(target.name),
        "USERS_FILE": str(path),
        "REDIS_URL": redis.url,
        "SESSION_SECRET": SECRET,
    }
    redis.run("FLUSHALL")

    def invoke(*arguments: str, rows: list[Any] | None = None, **more: str) -> Ended:
        if rows is not None:
            path.write_text(json.dumps(rows))
        ended = commands.invoke(arguments, environment(**variables | more))
        assert ended.code == 0, ended.error
        return ended

    return invoke


def _listed(redis: RedisServer, target: Target) -> set[int]:
    """Give the numbers of the users whose sessions of their first two epochs are on the list."""
    revocations = Revocations(url.parse(redis.url), [SECRET], seconds=5)
    found = {
        number
        for number in range(1, 5)
        for epoch in (0, 1)
        if revocations.has(session_of(User(user(number)["id"], "", None, "local", epoch)))
    }
    revocations.close()
    assert len(redis.keys()) == len(found)
    return found


def _batch(target: Target) -> str:
    return str(target.run("SELECT id FROM import_batches ORDER BY number DESC LIMIT 1")[0][0])


def test_who_loses_a_password_or_goes_is_on_the_list(
    run: Run, redis: RedisServer, target: Target
) -> None:
    run("apply", "--yes", rows=[user(1), user(2), user(3)])
    assert _listed(redis, target) == set()
    changed = [user(1, password=OTHER_HASH), user(2, name="Ada"), user(3), user(4)]
    assert NOT_TOLD not in run("apply", "--yes", rows=changed).error
    assert _listed(redis, target) == {1}
    redis.run("FLUSHALL")
    run("rollback", _batch(target), "--dry-run")
    assert _listed(redis, target) == set()
    run("rollback", _batch(target), "--yes")
    assert _listed(redis, target) == {1, 4}


def test_of_very_many_only_so_many_are_told(
    run: Run, redis: RedisServer, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "MAX_ANNOUNCED", 2)
    run("apply", "--yes", rows=[user(number) for number in range(1, 5)])
    error = run("rollback", _batch(target), "--yes").error
    assert "Sessions of more than 2 users have ended. Redis was told of so many; " in error
    assert len(_listed(redis, target)) == 2


def test_thousands_are_told_in_many_exchanges(redis: RedisServer) -> None:
    redis.run("FLUSHALL")
    revocations = Revocations(url.parse(redis.url), [SECRET])
    ended = [User(str(number), "", None, "local") for number in range(10_000)]
    assert announcing.announce(revocations, ended) == ""
    revocations.close()
    assert redis.run("DBSIZE") == 10_000


def test_what_was_done_is_done_while_redis_is_away(run: Run, redis: RedisServer) -> None:
    run("apply", "--yes", rows=[user(1)])
    with redis.killed():
        ended = run("apply", "--yes", rows=[user(1, password=OTHER_HASH)])
    assert f"{NOT_TOLD}the connection to 127.0.0.1 failed: Connection refused." in ended.error
    assert "Written and verified" in ended.output


def test_without_the_functions_secret_nothing_can_be_told(
    run: Run, redis: RedisServer, target: Target
) -> None:
    run("apply", "--yes", rows=[user(1)])
    changed = [user(1, password=OTHER_HASH)]
    production = {"ENVIRONMENT": "production", "BCRYPT_ROUNDS": "12", "SESSION_SECRET": ""}
    ended = run("apply", "--yes", rows=changed, **production)
    assert f"{NOT_TOLD}that needs the functions' own SESSION_SECRET." in ended.error
    assert _listed(redis, target) == set()
