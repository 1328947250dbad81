"""An import on real Postgres: what it does with each row, and that it proves what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import RowsRejected, TransferRefused
from shared.transfer import export, rollback, writing
from tests.support.postgres import Server, running_pgbouncer
from tests.support.transfers import Target, finish, nonzero, user


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


def test_members_without_a_column_are_counted_not_lost_silently(target: Target) -> None:
    plan, _ = target.plan([user(1, avatar="x"), user(2, avatar="y", role="admin"), user(3)])
    assert plan.unknown_members == {"avatar": 2, "role": 1}


def test_a_verification_tells_later_changes_from_damage(target: Target) -> None:
    rows = [user(number) for number in range(1, 7)]
    target.apply(rows[:5])
    assert nonzero(target.verify(rows[:5])[0].counts) == {"identical": 5}
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    target.run("DELETE FROM users WHERE email = 'user2@example.com'")
    target.run("ALTER TABLE users DISABLE TRIGGER zz_ai_coder_updated_at")
    target.run("UPDATE users SET password = NULL WHERE email = 'user3@example.com'")
    target.run("ALTER TABLE users ENABLE TRIGGER zz_ai_coder_updated_at")
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
    with pytest.raises(TransferRefused, match=r"row 1 .* differs from the source"):
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


def test_an_import_works_behind_a_pooler_in_transaction_mode(
    postgres: Server, target: Target, pgbouncer_program: str
) -> None:
    with running_pgbouncer(postgres, server_connections=2) as pooler:
        url = DatabaseUrl.parse(postgres.url(target.name, port=pooler.port))
        target.database = Database(url, DatabaseSettings())
        rows = [user(number) for number in range(2000)]
        target.plan(rows)
        applied, _ = target.apply(rows)
        assert target.verify(rows)[0].differing == 0
        assert json.loads(target.export()) == rows
        finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.users() == {}
