"""Who signs up, changes or goes while an import runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from shared.errors import RowsRejected, TransferRefused
from shared.transfer import importing
from shared.transfer.importing import Applied
from shared.transfer.steps import Event, Progress
from tests.support.transfers import Target, finish, nonzero, source_of, user


def test_who_changes_or_goes_while_an_import_runs_wins(target: Target) -> None:
    """Among them one whom it found identical, as a login that renews a hash changes users."""
    target.apply([user(number) for number in range(1, 6)])
    rows = [
        user(1),
        user(2),
        user(3, name="New"),
        user(4, name="New"),
        user(5, name="New"),
        user(6),
    ]
    running = _until_written(target, rows)
    for number in (1, 3):
        target.run(f"UPDATE users SET name = 'Later' WHERE email = 'user{number}@example.com'")
    target.run("DELETE FROM users WHERE email IN ('user2@example.com', 'user4@example.com')")
    applied, outcomes = finish(running)
    assert nonzero(applied.plan.counts) == {"identical": 2, "kept": 2, "changed": 1, "new": 1}
    assert [(outcome.row, outcome.verdict) for outcome in outcomes] == [(3, "kept"), (4, "kept")]
    assert {row[3] for row in target.users().values()} == {"Later", "New", "∅"}
    assert nonzero(target.verify(rows)[0].counts) == {
        "kept": 2, "deleted": 2, "identical": 2,
    }  # fmt: skip


def test_who_signs_up_while_an_import_runs_keeps_the_address(target: Target) -> None:
    rows = [user(1), user(2)]
    running = _until_written(target, rows)
    target.run("INSERT INTO users (email) VALUES ('user1@example.com')")
    with pytest.raises(RowsRejected):
        finish(running)
    target.run("DELETE FROM users")
    running = _until_written(target, rows, skip_invalid=True)
    target.run("INSERT INTO users (email) VALUES ('user1@example.com')")
    applied, (outcome,) = finish(running)
    assert nonzero(applied.plan.counts) == {"email_taken": 1, "new": 1}
    assert (outcome.row, outcome.verdict) == (1, "email_taken")


def test_a_sign_up_under_the_new_address_of_a_user_stops_the_import(target: Target) -> None:
    target.apply([user(1)])
    running = _until_written(target, [user(1, email="new@example.com")])
    target.run("INSERT INTO users (email) VALUES ('new@example.com')")
    with pytest.raises(TransferRefused, match="run it again"):
        finish(running)


def _until_written(
    target: Target, rows: list[Any], **options: Any
) -> Generator[Event, None, Applied]:
    """Run an import to the moment at which it has made up its mind and begins to write."""
    running = importing.apply(
        target.database,
        source_of(rows),
        batch_id=importing.new_batch_id(0),
        run_by="test",
        **options,
    )
    while next(running) != Progress("write", len(rows)):
        pass
    return running
