"""An import on real Postgres: what it does with each row, and that it proves what it did."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.config import Settings
from shared.database import Database
from shared.database_url import DatabaseUrl
from shared.errors import PlanOutdated, RowsRejected, TransferRefused
from shared.transfer import export, rollback
from tests.support.postgres import Server, running_pgbouncer
from tests.support.transfers import HASH, Target, finish, user

OTHER_HASH = HASH.replace("$10$", "$12$")


@pytest.fixture
def target(postgres: Server, database: str) -> Target:
    return Target(postgres, database)


@pytest.fixture
def empty_target(postgres: Server, make_database: Callable[..., str]) -> Target:
    """A database without any of our tables."""
    return Target(postgres, make_database(migrated=False))


def _counts(counts: dict[str, int]) -> dict[str, int]:
    return {verdict: number for verdict, number in counts.items() if number}


def test_the_old_servers_users_come_over_and_go_back_byte_for_byte(target: Target) -> None:
    data = (Path(__file__).parent / "data" / "old-users.json").read_bytes()
    applied, outcomes = target.apply(data)
    assert _counts(applied.plan.counts) == {"new": 17}
    assert outcomes == []
    stored = target.users()
    for row in json.loads(data):
        email, key, password, name, provider, created, updated, epoch = stored[row["id"]]
        assert email == row["email"]
        assert key == row["email"].lower()
        assert password == row.get("password", "∅")
        assert (name, provider, epoch) == (row.get("name", "∅"), row["provider"], "0")
        assert created.replace(" ", "T").ljust(23, "0") + "Z" == row["createdAt"]
        assert updated.replace(" ", "T").ljust(23, "0") + "Z" == row["updatedAt"]
    written = bytearray()
    exported, _ = finish(export.export(target.database, written.extend))
    assert bytes(written) == data
    assert exported.rows == 17
    assert exported.users_sha256 == applied.plan.users_sha256


def test_running_it_again_changes_nothing(target: Target) -> None:
    rows = [user(number) for number in range(20)]
    target.apply(rows)
    before = target.dump()
    applied, _ = target.apply(rows)
    assert applied.batch is None
    assert _counts(applied.plan.counts) == {"identical": 20}
    assert target.dump() == before


def test_a_plan_writes_nothing_and_says_what_an_apply_then_does(target: Target) -> None:
    target.apply([user(1), user(2)])
    rows = [user(1, name="Ada"), user(2), user(3)]
    before = target.dump()
    plan, _ = target.plan(rows)
    assert target.dump() == before
    applied, _ = target.apply(rows, plan_sha256=plan.sha256)
    assert applied.plan == plan
    assert _counts(plan.counts) == {"new": 1, "changed": 1, "identical": 1}


def test_a_plan_needs_no_schema(empty_target: Target) -> None:
    before = empty_target.dump()
    plan, _ = empty_target.plan([user(1), user(2, email="USER1@example.com")])
    assert _counts(plan.counts) == {"new": 1, "duplicate": 1}
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


def test_rejected_rows_stop_everything_unless_they_may_stay_behind(target: Target) -> None:
    rows = [user(1), user(2, password="secret"), user(3, email="USER1@example.com")]
    before = target.dump()
    with pytest.raises(RowsRejected, match="2 of 3"):
        target.apply(rows)
    assert target.dump() == before
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert _counts(applied.plan.counts) == {"new": 1, "invalid": 1, "duplicate": 1}
    assert [(outcome.row, outcome.verdict) for outcome in outcomes] == [
        (2, "invalid"),
        (3, "duplicate"),
    ]
    assert list(target.users()) == [user(1)["id"]]


@pytest.mark.parametrize(
    ("first", "second", "winner", "reason"),
    [
        ({"email": "Ada@x.org"}, {"email": "ada@x.org"}, 2, "lower case"),
        ({"email": "ada@x.org"}, {"email": "ADA@x.org", "createdAt": 0}, 1, "lower case"),
        ({"email": "Ada@x.org"}, {"email": "ADA@x.org", "createdAt": 0}, 2, "older"),
        ({"email": "Ada@x.org", "createdAt": ...}, {"email": "ADA@x.org"}, 2, "older"),
        ({"email": "Ada@x.org"}, {"email": "ADA@x.org"}, 1, "by id"),
        ({"email": "a@x.org"}, {"email": "a@x.org", "id": user(1)["id"]}, 1, "by id"),
        ({"id": user(7)["id"]}, {"id": user(7)["id"]}, 1, "same id"),
        ({"email": "e\u0301@x.org"}, {"email": "é@x.org"}, 2, "lower case"),
        ({"email": "a@xn--bcher-kva.de"}, {"email": "a@bücher.de"}, 2, "lower case"),
    ],
)
def test_of_two_rows_for_one_user_the_report_says_which_won_and_why(
    target: Target, first: dict[str, Any], second: dict[str, Any], winner: int, reason: str
) -> None:
    rows = [user(1, **first), user(2, **second)]
    _, (outcome,) = target.plan(rows)
    assert outcome.row == 3 - winner
    assert outcome.verdict == "duplicate"
    assert f"row {winner}." in outcome.reason
    assert reason in outcome.reason


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
    assert user(8)["id"] in outcomes[0].reason
    assert _counts(applied.plan.counts) == {"new": 1, "email_taken": 1, "id_taken": 1}
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
    assert _counts(applied.plan.counts) == {"changed": 1, "identical": 1}
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


def test_members_without_a_column_are_counted_not_lost_silently(target: Target) -> None:
    plan, _ = target.plan([user(1, avatar="x"), user(2, avatar="y", role="admin"), user(3)])
    assert plan.unknown_members == {"avatar": 2, "role": 1}


def test_a_verification_tells_later_changes_from_damage(target: Target) -> None:
    rows = [user(number) for number in range(1, 7)]
    target.apply(rows[:5])
    assert _counts(target.verify(rows[:5])[0].counts) == {"identical": 5}
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    target.run("DELETE FROM users WHERE email = 'user2@example.com'")
    target.run("ALTER TABLE users DISABLE TRIGGER update_users_updated_at")
    target.run("UPDATE users SET password = NULL WHERE email = 'user3@example.com'")
    target.run("ALTER TABLE users ENABLE TRIGGER update_users_updated_at")
    rows[3]["name"] = "New in the source"
    before = target.dump()
    found, outcomes = target.verify(rows)
    assert target.dump() == before
    assert {outcome.row: outcome.verdict for outcome in outcomes} == {
        1: "kept", 2: "deleted", 3: "altered", 4: "changed", 6: "new",
    }  # fmt: skip
    assert found.differing == 4


def test_a_database_that_holds_something_else_than_the_source_is_rolled_back(
    target: Target,
) -> None:
    target.run(
        "CREATE FUNCTION garble() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.name = upper(NEW.name); RETURN NEW; END'"
    )
    target.run(
        "CREATE TRIGGER garble BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION garble()"
    )
    before = target.dump()
    with pytest.raises(TransferRefused, match="does not hold what the source says"):
        target.apply([user(1, name="Ada")])
    assert target.dump() == before


def test_a_batch_records_who_brought_what(target: Target) -> None:
    rows = [user(1), user(2)]
    plan, _ = target.plan(rows)
    target.apply(rows, batch_id="mine", run_by="ada@laptop")
    ((*texts, counts),) = target.psql(
        "SELECT id, run_by, plan_sha256, source_sha256, users_sha256, counts FROM import_batches"
    )
    assert texts == ["mine", "ada@laptop", plan.sha256, plan.source_sha256, plan.users_sha256]
    assert json.loads(counts) == plan.counts


@pytest.mark.parametrize("other", [False, True])
def test_many_users_get_the_indexes_that_the_table_had(target: Target, *, other: bool) -> None:
    """A foreign key on the table forbids to drop one; then the indexes are kept all along."""
    if other:
        target.run("CREATE TABLE snippets (owner UUID REFERENCES users (id))")
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'users' ORDER BY 1"
    constraints = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'users'::regclass ORDER BY 1"
    )
    before = target.psql(indexes), target.psql(constraints)
    applied, _ = target.apply([user(number) for number in range(10_000)])
    assert applied.plan.counts["new"] == 10_000
    assert (target.psql(indexes), target.psql(constraints)) == before
    assert target.psql("SELECT count(*) FROM users") == [["10000"]]


def test_a_rollback_keeps_and_names_who_changed_and_who_signed_up(target: Target) -> None:
    target.apply([user(1), user(2), user(3)])
    first = target.users()
    applied, _ = target.apply(
        [user(1, name="Ada"), user(2, name="Bob"), user(3), user(4), user(5), user(6)]
    )
    target.run("UPDATE users SET password = NULL WHERE email IN ('user2@example.com')")
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user4@example.com'")
    target.run("DELETE FROM users WHERE email = 'user5@example.com'")
    target.run("INSERT INTO users (email) VALUES ('fresh@example.com')")
    current = target.users()
    done, outcomes = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert done.counts == {"removed": 1, "restored": 1, "kept": 2, "gone": 1, "signed_up": 1}
    assert {(outcome.email, outcome.verdict) for outcome in outcomes} == {
        ("user2@example.com", "kept"),
        ("user4@example.com", "kept"),
        (None, "gone"),
        ("fresh@example.com", "signed_up"),
    }
    after = target.users()
    assert after[user(1)["id"]] == first[user(1)["id"]]
    assert user(6)["id"] not in after
    for kept in (user(2)["id"], user(3)["id"], user(4)["id"]):
        assert after[kept] == current[kept]
    with pytest.raises(TransferRefused, match="was rolled back at"):
        finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    with pytest.raises(TransferRefused, match="no batch nothing"):
        finish(rollback.roll_back(target.database, "nothing", run_by="test"))


def test_a_batch_that_was_rolled_back_can_be_brought_again(target: Target) -> None:
    rows = [user(1), user(2)]
    applied, _ = target.apply(rows)
    before = target.users()
    finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.users() == {}
    target.apply(rows)
    assert target.users() == before


def test_an_import_works_behind_a_pooler_in_transaction_mode(
    postgres: Server, target: Target, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=2) as port:
        url = DatabaseUrl.parse(postgres.url(target.name, port=port))
        target.database = Database(url, Settings())
        rows = [user(number) for number in range(2000)]
        target.plan(rows)
        applied, _ = target.apply(rows)
        assert target.verify(rows)[0].differing == 0
        assert json.loads(target.export()) == rows
        finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.users() == {}


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
        user(first + 6, password=..., provider="google", name=""),
        user(first + 7, password=..., provider="firebase-google", name=None),
        user(first + 8, provider=..., epoch=3),
        user(first + 9, email=f"O'Brien+{first}@EXAMPLE.ie", name="\\N"),
    ]


def test_ten_thousand_users_with_every_oddity_through_the_whole_move(
    target: Target, tmp_path: Path
) -> None:
    chance = random.Random(1)
    rows = [row for first in range(0, 10_000, 10) for row in (
        _oddities(first) if first % 500 == 0 else [user(first + n) for n in range(10)]
    )]  # fmt: skip
    bad: list[Any] = [user(20_000, password="$2a$16$" + HASH[7:]), user(20_001, email="nobody"), 17]
    everything = rows + bad
    plan, outcomes = target.plan(everything)
    assert _counts(plan.counts) == {"new": 10_000, "invalid": 3}
    assert [outcome.row for outcome in outcomes] == [10_001, 10_002, 10_003]

    applied, _ = target.apply(everything, skip_invalid=True)
    stored = target.users()
    assert len(stored) == 10_000
    assert target.psql("SELECT count(DISTINCT email_key) FROM users") == [["10000"]]
    for row in rows:
        if "id" in row:
            values = stored[row["id"].lower()]
            assert values[0] == row["email"]
            assert values[2] == row.get("password", "∅")
            assert values[3] == (row.get("name") if row.get("name") is not None else "∅")
    assert _counts(target.verify(rows)[0].counts) == {"identical": 10_000}
    again, _ = target.apply(rows)
    assert again.batch is None
    assert target.users() == stored

    plain = [n for n in range(10_000) if n % 500 > 9]
    in_source, in_postgres = chance.sample(plain, 100), chance.sample(plain, 50)
    for number in in_source:
        rows[number] = user(number, name="Changed in the source")
    emails = ",".join(f"'user{number}@example.com'" for number in in_postgres)
    target.run(f"UPDATE users SET name = 'Changed in Postgres' WHERE email IN ({emails})")
    both = set(in_source) & set(in_postgres)
    changed_there = target.users()
    caught_up, outcomes = target.apply(rows)
    assert _counts(caught_up.plan.counts) == {
        "changed": 100 - len(both), "kept": 50, "identical": 9_850 + len(both),
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
    target.server.run(f"CREATE DATABASE {copy.name} OWNER app TEMPLATE migrated")
    copy.apply(target.export())
    assert copy.users() == target.users()

    done, outcomes = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert (done.counts["removed"], done.counts["kept"]) == (9_950, 50)
    assert {outcome.user_id for outcome in outcomes} == {user(n)["id"] for n in in_postgres}
    assert set(target.users()) == {user(n)["id"] for n in in_postgres}
