"""A plan, which only reads, decides of every row what an apply then does in its staging table."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Any

import pytest

from shared.transfer import comparing, duplicates, rollback, staging
from tests.support.session_settings import HOSTILE, set_defaults
from tests.support.transfers import HASH, Target, finish, nonzero, user

Row = dict[str, Any]
_OTHER_HASH = HASH[:-1] + "f"
_ADDRESSES = (
    "ada@example.com", "ADA@example.com", "bob@example.com", "Bob@Example.com",
    "eve@example.com", "max@example.com", "Zoë@example.com", "zoë@example.com",
)  # fmt: skip
_MEANWHILE = (
    "UPDATE users SET name = 'Later' WHERE id = {id}",
    """ALTER TABLE users DISABLE TRIGGER USER;
    UPDATE users SET name = 'Damaged' WHERE id = {id};
    ALTER TABLE users ENABLE TRIGGER USER""",
    "UPDATE users SET epoch = epoch + 1 WHERE id = {id}",
    "DELETE FROM users WHERE id = {id}",
    "INSERT INTO users (id, email) VALUES ({id}, {address}) ON CONFLICT DO NOTHING",
    "INSERT INTO users (email) VALUES ({address}) ON CONFLICT DO NOTHING",
    """INSERT INTO identities SELECT 'https://accounts.google.com', {subject}, id FROM users
    ORDER BY id DESC LIMIT 1 ON CONFLICT DO NOTHING""",
    """INSERT INTO applied_ops (operation, outcome, user_id) VALUES ({operation}, 'created', {id})
    ON CONFLICT DO NOTHING""",
    "SELECT",
)
_OPERATION = "0{}000000-0000-4000-8000-000000000000"


def _row(chance: random.Random) -> Row:
    if chance.random() < 0.1:
        return {"id": "nobody"}
    identities = [
        {"issuer": "https://accounts.google.com", "subject": subject}
        for subject in chance.sample("abcd", chance.choice((0, 0, 0, 1, 2)))
    ]
    pending = {"pending": {"operation": _OPERATION.format(chance.randrange(3))}}
    return user(
        chance.randrange(9),
        email=chance.choice(_ADDRESSES),
        password=chance.choice((HASH, _OTHER_HASH)),
        name=chance.choice((None, "Ada")),
        createdAt=chance.choice((None, "2024-02-29T12:00:00Z", "2023-01-01T00:00:00Z")),
        epoch=chance.choice((0, 0, 1)),
        identities=identities,
        **(pending if chance.random() < 0.1 else {}),
    )


def _meanwhile(chance: random.Random) -> str:
    return chance.choice(_MEANWHILE).format(
        id=f"'{user(chance.randrange(9))['id']}'",
        address=f"'{chance.choice(_ADDRESSES)}'",
        subject=f"'{chance.choice('abcd')}'",
        operation=f"'{_OPERATION.format(chance.randrange(3))}'",
    )


def _play(target: Target, seed: int, rounds: int) -> set[str]:
    """Import at random, with what happens in Postgres meanwhile; give the verdicts that came up."""
    chance = random.Random(seed)
    found: set[str] = set()
    batches: list[str] = []
    rows: list[Row] = []
    for number in range(rounds):
        target.run("; ".join(_meanwhile(chance) for _ in range(3)))
        if batches and chance.random() < 0.15:
            finish(rollback.roll_back(target.database, batches.pop(), run_by="test"))
        kept = chance.sample(rows, len(rows) // 3)
        rows = kept + [_row(chance) for _ in range(chance.randrange(12))] + [user(100 + number)]
        chance.shuffle(rows)
        plan, foretold = target.plan(rows)
        applied, told = target.apply(rows, plan_sha256=plan.sha256, skip_invalid=True)
        assert applied.plan == plan, (seed, number, rows)
        assert [it for it in foretold if it.verdict != staging.CHANGED] == told, (seed, number)
        batches.append(str(applied.batch))
        found |= nonzero(plan.counts).keys()
    return found


@pytest.fixture
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "BATCH_ROWS", 4)
    monkeypatch.setattr(duplicates, "_AT_ONCE", 5)


@pytest.mark.usefixtures("_few_at_once")
def test_a_plan_says_of_each_row_what_an_apply_does_whatever_came_before(target: Target) -> None:
    assert _play(target, seed=1, rounds=20) == set(staging.VERDICTS)


@pytest.mark.long
@pytest.mark.usefixtures("_few_at_once")
@pytest.mark.parametrize("seed", range(8))
def test_so_it_does_in_longer_histories(target: Target, seed: int) -> None:
    _play(target, seed=seed, rounds=150)


def test_a_plan_holds_of_more_rows_than_are_digested_at_once(target: Target) -> None:
    rows: list[Row] = [{}] * (staging.DECISIONS_PART + 10)
    rows[7] = rows[-3] = user(1)
    rows[9_999] = user(2)
    plan, _ = target.plan(rows)
    applied, _ = target.apply(rows, plan_sha256=plan.sha256, skip_invalid=True)
    assert applied.plan == plan
    assert nonzero(plan.counts) == {"new": 2, "duplicate": 1, "invalid": len(rows) - 3}


def test_what_reads_says_the_same_whatever_is_set_for_the_database(target: Target) -> None:
    google = [{"issuer": "https://accounts.google.com", "subject": "1"}]
    rows = [user(number, identities=google if number == 3 else []) for number in range(9)]
    target.apply(rows)
    source = [user(0, name="Ada"), *rows[1:], user(9, email="USER7@example.com"), user(10)]
    source += [{}, user(11, identities=google)]
    expected = target.plan(source), target.verify(source), target.export()
    settings = HOSTILE | {"datestyle": "German, DMY", "timezone": "Asia/Kathmandu"}
    set_defaults(target.server, f"DATABASE {target.name}", **settings)
    with closing(Target(target.server, target.name)) as again:
        assert (again.plan(source), again.verify(source), again.export()) == expected
