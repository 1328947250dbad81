"""What becomes of a row that meets another one, or a user whom Postgres has."""

from __future__ import annotations

from typing import Any

import pytest

from shared.transfer import rollback
from tests.support.transfers import HASH, Target, finish, nonzero, user


@pytest.mark.parametrize(
    ("first", "second", "winner", "reason"),
    [
        ({"email": "Ada@x.org"}, {"email": "ada@x.org"}, 2, "lower case"),
        ({"email": "ada@x.org"}, {"email": "ADA@x.org", "createdAt": 10**12}, 1, "lower case"),
        # Whoever cannot prove the address does not take it from whoever has.
        (
            {"email": "ada@x.org", "unverifiedSince": 10**12},
            {"email": "ADA@x.org", "emailVerifiedAt": 10**12},
            2,
            "is proved",
        ),
        ({"email": "ada@x.org", "unverifiedSince": 10**12}, {"email": "ADA@x.org"}, 2, "is proved"),
        (
            {"email": "ada@x.org", "unverifiedSince": 10**12},
            {"email": "ADA@x.org", "unverifiedSince": 10**12},
            1,
            "lower case",
        ),
        (
            {"email": "ada@x.org", "unverifiedSince": 10**12, "emailVerifiedAt": 10**12},
            {"email": "ADA@x.org"},
            1,
            "lower case",
        ),
        ({"email": "Ada@x.org"}, {"email": "ADA@x.org", "createdAt": 10**12}, 2, "older"),
        ({"email": "Ada@x.org", "createdAt": ...}, {"email": "ADA@x.org"}, 2, "older"),
        ({"email": "Ada@x.org"}, {"email": "ADA@x.org"}, 1, "by id"),
        ({"email": "a@x.org"}, {"email": "a@x.org", "id": user(1)["id"]}, 1, "by id"),
        ({"email": "e\u0301@x.org"}, {"email": "é@x.org"}, 2, "lower case"),
        ({"email": "a@xn--bcher-kva.de"}, {"email": "a@bücher.de"}, 2, "lower case"),
        ({"email": "\u200ba@x.org"}, {"email": "a@x.org"}, 2, "lower case"),
        (
            {"email": "\ufeffa@x.org\u200f"},
            {"email": "a@x.\u00adorg", "createdAt": ...},
            1,
            "older",
        ),
    ],
)
def test_of_two_rows_for_one_user_the_report_says_which_won_and_why(
    target: Target, first: dict[str, Any], second: dict[str, Any], winner: int, reason: str
) -> None:
    rows = [user(1, **first), user(2, **second)]
    _, (outcome,) = target.plan(rows)
    assert outcome.row == 3 - winner
    assert outcome.verdict == "duplicate"
    assert outcome.other_row == winner
    assert reason in outcome.reason


def test_an_address_with_characters_that_nobody_sees_is_found_by_what_is_typed(
    target: Target,
) -> None:
    rows = [
        user(1, email="\u200bAda@example.com\u200f"), user(2, email="\ufeffeve@example.com "),
        user(3, email="\u200b@example.com"), user(4, email="x@\u2060"),
    ]  # fmt: skip
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert nonzero(applied.plan.counts) == {"new": 2, "invalid": 2}
    assert {outcome.reason for outcome in outcomes} == {"The email is missing or not an address."}
    assert [row[:2] for row in target.users().values()] == [
        [rows[0]["email"], "ada@example.com"],
        [rows[1]["email"], "eve@example.com"],
    ]
    assert target.verify(rows[:2])[0].differing == 0


def test_rows_of_one_id_and_several_addresses_are_all_rejected(target: Target) -> None:
    """Also where Postgres knows whose id it is, and where another row has one of the addresses."""
    target.apply([user(1)])
    before = target.users()
    rows = [user(1, email="evil@example.com"), user(1), user(2), user(3, email="EVIL@example.com")]
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert nonzero(applied.plan.counts) == {"new": 2, "duplicate": 2}
    assert [(outcome.row, outcome.other_row) for outcome in outcomes] == [(1, 2), (2, 1)]
    after = target.users()
    assert set(after) == {user(number)["id"] for number in (1, 2, 3)}
    assert after[user(1)["id"]] == before[user(1)["id"]]


def test_sessions_that_were_ended_do_not_go_on_after_an_import_or_a_rollback(
    target: Target,
) -> None:
    target.apply([user(1, epoch=2)])
    applied, (outcome,) = target.apply([user(1, epoch=1, name="Ada")])
    assert (applied.batch, outcome.verdict) == (None, "kept")
    applied, _ = target.apply([user(1, epoch=5, name="Ada")])
    finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    ((*_, name, _, _, _, epoch),) = target.users().values()
    assert (name, epoch) == ("∅", "5")


def test_postgres_keeps_an_email_or_an_id_that_another_user_has_there(target: Target) -> None:
    target.run(
        "INSERT INTO users (id, email, name) VALUES "
        f"('{user(8)['id']}', 'Taken@example.com', 'There'),"
        f"('{user(9)['id']}', 'other@example.com', 'There')"
    )
    rows = [user(1, email="taken@EXAMPLE.com"), user(9), user(3)]
    before = target.users()
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert [(outcome.row, outcome.verdict) for outcome in outcomes] == [
        (1, "email_taken"),
        (2, "id_taken"),
    ]
    assert outcomes[0].other_id == user(8)["id"]
    assert nonzero(applied.plan.counts) == {"new": 1, "email_taken": 1, "id_taken": 1}
    after = target.users()
    assert after.pop(user(3)["id"])
    assert after == before


def test_a_user_who_was_there_before_any_import_is_left_alone(target: Target) -> None:
    target.run(f"INSERT INTO users (id, email) VALUES ('{user(1)['id']}', 'user1@example.com')")
    before = target.users()
    applied, (outcome,) = target.apply([user(1, name="Theirs")])
    assert (applied.batch, outcome.verdict) == (None, "kept")
    assert target.users() == before


def test_what_changed_in_the_source_is_brought_with_its_times(target: Target) -> None:
    target.apply([user(1), user(2)])
    changed = user(1, name="Ada", email="ada@example.com", updatedAt="2025-12-24T00:00:00.000001Z")
    applied, _ = target.apply([changed, user(2)])
    assert nonzero(applied.plan.counts) == {"changed": 1, "identical": 1}
    assert target.users()[user(1)["id"]] == [
        "ada@example.com", "ada@example.com", HASH, "Ada", "local",
        "2025-06-09 17:54:12.721", "2025-12-24 00:00:00.000001", "0",
    ]  # fmt: skip


@pytest.mark.parametrize("source", [{}, {"name": "In the source"}])
def test_what_changed_in_postgres_stays_whatever_the_source_says(
    target: Target, source: dict[str, Any]
) -> None:
    target.apply([user(1)])
    target.run("UPDATE users SET name = 'In Postgres'")
    before = target.users()
    applied, (outcome,) = target.apply([user(1, **source)])
    assert (applied.batch, outcome.verdict, outcome.row) == (None, "kept", 1)
    assert target.users() == before


def test_who_was_deleted_in_postgres_is_not_brought_back(target: Target) -> None:
    target.apply([user(1), user(2)])
    target.run("DELETE FROM users WHERE email = 'user1@example.com'")
    applied, (outcome,) = target.apply([user(1), user(2)])
    assert (applied.batch, outcome.verdict) == (None, "deleted")
    assert list(target.users()) == [user(2)["id"]]


def test_who_is_gone_from_the_source_stays_and_is_counted(target: Target) -> None:
    target.apply([user(1), user(2), user(3)])
    plan, _ = target.plan([user(2)])
    assert plan.absent == 2
    assert len(target.users()) == 3


def test_an_address_that_its_owner_gives_up_can_be_taken_in_the_same_import(
    target: Target,
) -> None:
    target.apply([user(1)])
    rows = [user(1, email="married@example.com"), user(2, email="user1@example.com")]
    applied, _ = target.apply(rows)
    assert nonzero(applied.plan.counts) == {"changed": 1, "new": 1}
    assert nonzero(target.verify(rows)[0].counts) == {"identical": 2}


def test_who_cannot_change_gives_no_address_up(target: Target) -> None:
    target.apply([user(1), user(2)])
    rows = [user(1, email="user2@example.com"), user(3, email="user1@example.com")]
    planned, _ = target.plan(rows)
    applied, _ = target.apply(rows, skip_invalid=True)
    assert nonzero(planned.counts) == nonzero(applied.plan.counts) == {"email_taken": 2}


@pytest.mark.parametrize("turned", [False, True])
def test_an_address_keeps_the_key_that_a_login_looks_for_however_it_is_respelled(
    target: Target, *, turned: bool
) -> None:
    spellings = ["a@xn--bcher-kva.de", "A@bücher.de"]
    first, second = reversed(spellings) if turned else spellings
    target.apply([user(1, email=first)])
    before = target.users()
    applied, _ = target.apply([user(1, email=second)])
    finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.users() == before
    assert before[user(1)["id"]][1] == "a@bücher.de"
