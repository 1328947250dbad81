"""What an import and its rollback do grows with the rows, and not with their square.

The server itself counts, by auto_explain: the rows that each node of each plan gave or threw away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.transfer import rollback
from tests.support.transfers import Target, finish, nonzero, user

COUNT = 1_500
MAX_WORK = 100
"""Rows that a statement may look at for each of the source's: a plan has some twenty nodes."""
MAX_WORK_OF_NEW = 41.5
"""And all statements together, where each of the source's rows is a new user."""
_COUNTED = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter")
_PLAN = re.compile(r"duration: [\d.]+ ms  plan:\s*")
Rows = list[dict[str, Any]]


@pytest.fixture
def target(target: Target) -> Target:
    settings = {"log_min_duration": "0", "log_analyze": "on", "log_format": "json",
                "log_timing": "off"}  # fmt: skip
    target.run(f"ALTER DATABASE {target.name} SET session_preload_libraries = 'auto_explain'")
    target.run("LOAD 'auto_explain'; " + "; ".join(
        f"ALTER DATABASE {target.name} SET auto_explain.{name} = '{value}'"
        for name, value in settings.items()
    ))  # fmt: skip
    return target


@contextmanager
def _bounded_work(target: Target, statements: int) -> Iterator[None]:
    """Check how much each statement does, and that the server has counted so many at least."""
    before = len(target.server.log())
    yield
    found = _plans(target, before)
    assert len(found) >= statements
    for plan in found:
        work = _work(plan["Plan"])
        assert work <= MAX_WORK * COUNT, f"{work / COUNT:.0f} for each row: {plan['Query Text']}"


def _plans(target: Target, before: int) -> Rows:
    """Give the plans that the server has logged behind so many characters."""
    log = target.server.log()[before:]
    return [json.JSONDecoder().raw_decode(log, match.end())[0] for match in _PLAN.finditer(log)]


def _work(node: dict[str, Any]) -> float:
    rows: float = sum(node.get(name, 0) for name in _COUNTED) * node["Actual Loops"]
    return rows + sum(map(_work, node.get("Plans", [])))


def _identity(subject: object) -> list[dict[str, str]]:
    return [{"issuer": "https://accounts.google.com", "subject": str(subject)}]


_NEW = [user(number) for number in range(COUNT)]
_CLAIMS = [
    pytest.param({"identities": _identity("all")}, id="identity"),
    pytest.param({"id": user(1)["id"]}, id="id"),
    pytest.param({"email": "ADA@example.com"}, id="email"),
]


def test_new_users_are_gone_through_a_few_times_only(target: Target) -> None:
    """One more pass is a percent of the whole time, and nobody would see it come."""
    before = len(target.server.log())
    target.apply(_NEW)
    work = sum(_work(plan["Plan"]) for plan in _plans(target, before)) / COUNT
    assert work <= MAX_WORK_OF_NEW


@pytest.mark.parametrize("claim", _CLAIMS)
def test_rows_that_all_claim_the_same_cost_each_other_nothing(
    target: Target, claim: dict[str, Any]
) -> None:
    with _bounded_work(target, 10):
        plan, _ = target.plan([row | claim for row in _NEW])
    assert plan.counts["duplicate"] >= COUNT - 1


def test_every_row_of_a_shared_identity_names_another_one_of_it(target: Target) -> None:
    shared = [_identity("a"), _identity("b") + _identity("a"), _identity("b"), _identity("c")]
    rows = [user(number, identities=given) for number, given in enumerate(shared)]
    _, outcomes = target.plan(rows)
    assert [(outcome.row, outcome.other_row) for outcome in outcomes] == [(1, 2), (2, 1), (3, 2)]


def test_rows_whose_address_is_taken_cost_each_other_nothing(target: Target) -> None:
    """Each of them might be given up by a user who changes in the same import."""
    target.apply(_NEW)
    moved = [user(number, name="Ada") for number in range(COUNT)]
    late = [user(COUNT + number, email=row["email"].upper()) for number, row in enumerate(_NEW)]
    target.run("UPDATE users SET updated_at = updated_at")
    with _bounded_work(target, 10):
        plan, _ = target.plan(late)
        assert nonzero(plan.counts) == {"email_taken": COUNT}
        target.plan(moved)


@pytest.mark.parametrize("identified", [False, True])
def test_changes_and_their_rollback_cost_each_other_nothing(
    target: Target, *, identified: bool
) -> None:
    """Among them the users of an outage, and those who give an address to the next one."""
    first = [row | ({"identities": _identity(n)} if identified else {})
             for n, row in enumerate(_NEW)]  # fmt: skip
    second = [
        row | {"password": None, "provider": "google", "email": f"next{n}@example.com"}
        | ({"identities": _identity(COUNT + n)} if identified else {})
        for n, row in enumerate(_NEW)
    ] + [user(COUNT + n, email=row["email"]) for n, row in enumerate(_NEW)]  # fmt: skip
    target.apply(first)
    target.run(
        "INSERT INTO applied_ops (operation, outcome, user_id)"
        f" SELECT gen_random_uuid(), 'created', gen_random_uuid() FROM generate_series(1, {COUNT})"
    )
    target.run("ANALYZE import_records")  # As the server does by itself: it knows one batch.
    with _bounded_work(target, 20):
        applied, _ = target.apply(second)
        assert nonzero(applied.plan.counts) == {"new": COUNT, "changed": COUNT}
        done, _ = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert sum(nonzero(done.counts).values()) == 2 * COUNT
