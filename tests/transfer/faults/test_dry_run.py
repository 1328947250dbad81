"""A dry run changes nothing, whatever becomes of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import run
from tests.support.import_faults import signalled, snapshot, url
from tests.support.interceptor import Interceptor
from tests.support.old_database import OLD_DDL, OLD_ROWS
from tests.support.postgres import Server
from tests.support.transfers import Target, user


@pytest.mark.parametrize("holds", ["users", "nothing", "old users"])
def test_a_dry_run_changes_neither_the_database_nor_a_file(
    postgres: Server, make_database: Callable[..., str], users_file: Path, holds: str
) -> None:
    """`pg_dump` says the same before and after, and so do the folder's bytes, times and modes."""
    target = Target(postgres, make_database(migrated=holds == "users"))
    if holds == "users":
        target.apply([user(1, name="Ada"), user(2), user(999)])
        target.run("UPDATE users SET name = 'Later' WHERE email = 'user2@example.com'")
    elif holds == "old users":
        target.run(f"SET ROLE app; {OLD_DDL}")
        target.run(OLD_ROWS)
    before = target.dump(), snapshot(users_file.parent)
    ended = run(url(target), users_file, "plan", "--json")
    assert ended.code == (1 if holds == "old users" else 3), ended.error
    assert (target.dump(), snapshot(users_file.parent)) == before


@pytest.mark.parametrize("sql", ["BEGIN", "SELECT verdict", "WITH given", "SELECT count(DISTINCT"])
def test_an_interrupted_dry_run_changes_nothing_either(
    target: Target, interceptor: Interceptor, users_file: Path, sql: str
) -> None:
    target.apply([user(1), user(2)])
    before = target.dump(), snapshot(users_file.parent)
    ended = signalled(
        interceptor, target, users_file, ("plan",), signal.SIGINT,
        lambda message: message.sql.lstrip().startswith(sql),
    )  # fmt: skip
    assert (ended.code, ended.error.splitlines()[-1]) == (130, "Interrupted. Nothing was changed.")
    assert (target.dump(), snapshot(users_file.parent)) == before
