"""A plan writes nothing, and an apply does what it says or refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shared.errors import PlanOutdated
from tests.support.postgres import Server
from tests.support.transfers import Target, nonzero, user


@pytest.fixture
def empty_target(postgres: Server, make_database: Callable[..., str]) -> Target:
    """A database without any of our tables."""
    return Target(postgres, make_database(migrated=False))


def test_a_plan_writes_nothing_and_says_what_an_apply_then_does(target: Target) -> None:
    target.apply([user(1), user(2)])
    rows = [user(1, name="Ada"), user(2), user(3)]
    before = target.dump()
    plan, _ = target.plan(rows)
    assert target.dump() == before
    applied, _ = target.apply(rows, plan_sha256=plan.sha256)
    assert applied.plan == plan
    assert nonzero(plan.counts) == {"new": 1, "changed": 1, "identical": 1}


def test_a_plan_needs_no_schema(empty_target: Target) -> None:
    before = empty_target.dump()
    plan, _ = empty_target.plan([user(1), user(2, email="USER1@example.com")])
    assert nonzero(plan.counts) == {"new": 1, "duplicate": 1}
    assert empty_target.dump() == before


@pytest.mark.parametrize("change", ["source", "user", "sign-up"])
def test_an_apply_refuses_a_plan_that_no_longer_holds(target: Target, change: str) -> None:
    target.apply([user(1)])
    rows = [user(1, name="Ada"), user(2)]
    plan, _ = target.plan(rows)
    if change == "source":
        rows.append(user(3))
    elif change == "user":
        target.run("UPDATE users SET name = 'Countess'")
    else:
        target.run("INSERT INTO users (email) VALUES ('user2@example.com')")
    before = target.dump()
    with pytest.raises(PlanOutdated):
        target.apply(rows, plan_sha256=plan.sha256, skip_invalid=True)
    assert target.dump() == before


def test_a_plan_outlives_what_does_not_concern_it(target: Target) -> None:
    rows = [user(1), user(2)]
    plan, _ = target.plan(rows)
    target.run("INSERT INTO users (email) VALUES ('stranger@example.com')")
    applied, _ = target.apply(rows, plan_sha256=plan.sha256)
    assert applied.batch
