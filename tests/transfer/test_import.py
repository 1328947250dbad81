"""An import on real Postgres: what it does with each row, and that it proves what it did."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from shared.database.pool import Database
from shared.database.url import DatabaseUrl
from shared.errors import PlanOutdated, RowsRejected, TransferRefused
from shared.settings import Settings
from shared.transfer import export, importing, rollback, writing
from shared.transfer.importing import Applied
from shared.transfer.steps import Event, Progress
from tests.support.postgres import Server, running_pgbouncer
from tests.support.transfers import HASH, Target, finish, nonzero, source_of, user


@pytest.fixture
def empty_target(postgres: Server, make_database: Callable[..., str]) -> Target:
    """A database without any of our tables."""
    return Target(postgres, make_database(migrated=False))


def test_the_old_servers_users_come_over_and_go_back_byte_for_byte(target: Target) -> None:
    data = (Path(__file__).parents[1] / "data" / "old-users.json").read_bytes()
    applied, outcomes = target.apply(data)
    assert nonzero(applied.plan.counts) == {"new": 17}
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


def test_times_of_every_age_arrive_to_the_microsecond(target: Target) -> None:
    times = [
        "0001-01-01T00:00:00.000001", "1900-02-28T23:59:59.999999", "1969-12-31T23:59:59.999999",
        "1999-12-31T23:59:59.999999", "2000-01-01T00:00:00", "2262-04-11T23:47:16.854775",
        "9999-12-31T23:59:59.999999",
    ]  # fmt: skip
    target.apply([user(number, createdAt=f"{time}Z") for number, time in enumerate(times)])
    assert [row[5].replace(" ", "T") for row in target.users().values()] == times


def test_running_it_again_changes_nothing(target: Target) -> None:
    rows = [user(number) for number in range(20)]
    target.apply(rows)
    before = target.dump()
    applied, _ = target.apply(rows)
    assert applied.batch is None
    assert nonzero(applied.plan.counts) == {"identical": 20}
    assert target.dump() == before


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


def test_rejected_rows_stop_everything_unless_they_may_stay_behind(target: Target) -> None:
    rows = [user(1), user(2, password="secret"), user(3, email="USER1@example.com")]
    before = target.dump()
    with pytest.raises(RowsRejected, match="2 of 3"):
        target.apply(rows)
    assert target.dump() == before
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert nonzero(applied.plan.counts) == {"new": 1, "invalid": 1, "duplicate": 1}
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
    assert outcome.other_row == winner
    assert reason in outcome.reason


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


def test_members_without_a_column_are_counted_not_lost_silently(target: Target) -> None:
    plan, _ = target.plan([user(1, avatar="x"), user(2, avatar="y", role="admin"), user(3)])
    assert plan.unknown_members == {"avatar": 2, "role": 1}


def test_a_verification_tells_later_changes_from_damage(target: Target) -> None:
    rows = [user(number) for number in range(1, 7)]
    target.apply(rows[:5])
    assert nonzero(target.verify(rows[:5])[0].counts) == {"identical": 5}
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


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "0044-03-15 12:00:00 BC"])
def test_a_time_that_no_file_can_hold_stops_an_export_by_name(target: Target, moment: str) -> None:
    values = f"'{user(1)['id']}', 'a@x.org', '{moment}'"
    target.run(f"INSERT INTO users (id, email, created_at) VALUES ({values})")
    with pytest.raises(TransferRefused, match=user(1)["id"]):
        target.export()


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
def test_many_users_get_the_indexes_that_the_table_had(
    target: Target, monkeypatch: pytest.MonkeyPatch, *, other: bool
) -> None:
    """A foreign key on the table forbids to drop one; then the indexes are kept all along."""
    monkeypatch.setattr(writing, "INDEX_LATER_ROWS", 1_000)
    if other:
        target.run("CREATE TABLE snippets (owner UUID REFERENCES users (id))")
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'users' ORDER BY 1"
    constraints = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'users'::regclass ORDER BY 1"
    )
    files = "SELECT pg_relation_filenode('users_pkey'), pg_relation_filenode('idx_users_email')"
    before, files_before = (target.psql(indexes), target.psql(constraints)), target.psql(files)
    applied, _ = target.apply([user(number) for number in range(1_000)])
    assert applied.plan.counts["new"] == 1_000
    assert (target.psql(indexes), target.psql(constraints)) == before
    assert (target.psql(files) == files_before) is other
    assert target.psql("SELECT count(*) FROM users") == [["1000"]]


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


def test_an_import_works_behind_a_pooler_in_transaction_mode(
    postgres: Server, target: Target, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=2) as pooler:
        url = DatabaseUrl.parse(postgres.url(target.name, port=pooler.port))
        target.database = Database(url, Settings())
        rows = [user(number) for number in range(2000)]
        target.plan(rows)
        applied, _ = target.apply(rows)
        assert target.verify(rows)[0].differing == 0
        assert json.loads(target.export()) == rows
        finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.users() == {}
