"""Many users, every oddity among them, through the whole move and back."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shared.transfer import rollback
from tests.support.transfers import HASH, Target, finish, nonzero, user


def _google(subject: int) -> list[dict[str, str]]:
    return [{"issuer": "https://accounts.google.com", "subject": str(subject)}]


def _oddities(first: int) -> list[dict[str, Any]]:
    """Give rows with everything that may be odd and still comes over."""
    return [
        user(first, id=...),
        user(first + 1, id=user(first + 1)["id"].upper()),
        user(first + 2, createdAt=..., updatedAt=...),
        user(first + 3, createdAt=1749491652721, updatedAt="2025-06-09T23:24:12.721345678+05:30"),
        user(
            first + 4, createdAt=..., created_at="2025-06-09T17:54:12Z", name="Tab\tLine\nBack\\N"
        ),
        user(first + 5, name="山田 健二 😀 \u0085\u2028", email=f"Üm{first}@Exämple.de"),
        user(first + 6, password=..., provider="google", name="", identities=_google(first + 6)),
        user(
            first + 7,
            password=...,
            provider="firebase-google",
            name=None,
            identities=[
                {"issuer": "https://securetoken.google.com/p", "subject": f'\\\t"{first}'},
                *_google(first + 7),
            ],
        ),
        user(first + 8, provider=..., epoch=3),
        user(first + 9, email=f"O'Brien+{first}@EXAMPLE.ie", name="\\N"),
    ]


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_users_with_every_oddity_through_the_whole_move(target: Target, count: int) -> None:
    chance = random.Random(1)
    apart = count // 20
    rows = [row for first in range(0, count, 10) for row in (
        _oddities(first) if first % apart == 0 else [user(first + n) for n in range(10)]
    )]  # fmt: skip
    bad: list[Any] = [user(20_000, password="$2a$16$" + HASH[7:]), user(20_001, email="nobody"), 17]
    everything = rows + bad
    plan, outcomes = target.plan(everything)
    assert nonzero(plan.counts) == {"new": count, "invalid": 3}
    assert [outcome.row for outcome in outcomes] == [count + 1, count + 2, count + 3]

    applied, _ = target.apply(everything, skip_invalid=True)
    stored = target.users()
    assert len(stored) == count
    assert target.psql("SELECT count(DISTINCT email_key) FROM users") == [[str(count)]]
    for row in rows:
        if "id" in row:
            values = stored[row["id"].lower()]
            assert values[0] == row["email"]
            assert values[2] == row.get("password", "∅")
            assert values[3] == (row.get("name") if row.get("name") is not None else "∅")
    assert nonzero(target.verify(rows)[0].counts) == {"identical": count}
    again, _ = target.apply(rows)
    assert again.batch is None
    assert target.users() == stored

    plain = [n for n in range(count) if n % apart > 9]
    in_source, in_postgres = chance.sample(plain, 100), chance.sample(plain, 50)
    for number in in_source:
        rows[number] = user(number, name="Changed in the source")
    emails = ",".join(f"'user{number}@example.com'" for number in in_postgres)
    target.run(f"UPDATE users SET name = 'Changed in Postgres' WHERE email IN ({emails})")
    both = set(in_source) & set(in_postgres)
    changed_there = target.users()
    caught_up, outcomes = target.apply(rows)
    assert nonzero(caught_up.plan.counts) == {
        "changed": 100 - len(both), "kept": 50, "identical": count - 150 + len(both),
    }  # fmt: skip
    assert {outcome.row for outcome in outcomes} == {number + 1 for number in in_postgres}
    after = target.users()
    for number in plain:
        stored_name = after[user(number)["id"]][3]
        if number in in_postgres:
            assert stored_name == "Changed in Postgres"
        elif number in in_source:
            assert stored_name == "Changed in the source"
        else:
            assert after[user(number)["id"]] == stored[user(number)["id"]]

    done, _ = finish(rollback.roll_back(target.database, str(caught_up.batch), run_by="test"))
    assert done.counts["restored"] == 100 - len(both)
    assert target.users() == changed_there

    copy = Target(target.server, f"{target.name}_copy")
    target.server.create_database(copy.name, "migrated")
    copy.apply(target.export())
    assert copy.users() == target.users()
    assert copy.identities() == target.identities()
    assert len(copy.identities()) == 60

    done, outcomes = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert (done.counts["removed"], done.counts["kept"]) == (count - 50, 50)
    assert {outcome.user_id for outcome in outcomes} == {user(n)["id"] for n in in_postgres}
    assert set(target.users()) == {user(n)["id"] for n in in_postgres}
