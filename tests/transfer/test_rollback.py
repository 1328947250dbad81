"""A rollback takes back what an import brought, and nothing that anybody did after it."""

from __future__ import annotations

from contextlib import closing

import pytest

from shared.errors import TransferRefused
from shared.transfer import rollback
from shared.transfer.rollback import RolledBack
from shared.transfer.steps import Outcome
from tests.support.foreign_objects import trigger
from tests.support.old_database import OLD_DDL
from tests.support.stores import postgres_store, stored
from tests.support.transfers import Target, finish, nonzero, user


def _roll_back(target: Target, batch: str | None) -> tuple[RolledBack, list[Outcome]]:
    return finish(rollback.roll_back(target.database, str(batch), run_by="test"))


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
    done, outcomes = _roll_back(target, applied.batch)
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
        _roll_back(target, applied.batch)
    with pytest.raises(TransferRefused, match="no batch nothing"):
        _roll_back(target, "nothing")


def test_an_import_and_its_rollback_hold_after_the_old_server_has_started_again(
    target: Target,
) -> None:
    """It redefines its function and its trigger whenever it starts."""
    target.apply([user(1), user(2)])
    first = target.users()
    target.run(OLD_DDL)
    moved = user(1, name="Ada", updatedAt="2025-07-01T00:00:00Z")
    applied, _ = target.apply([moved, user(2)])
    assert nonzero(target.verify([moved, user(2)])[0].counts) == {"identical": 2}
    done, _ = _roll_back(target, applied.batch)
    assert done.counts["restored"] == 1
    assert target.users() == first
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user1@example.com'")
    assert target.run("SELECT count(*) FROM users WHERE updated_at > now() - interval '1 day'") == [
        [1]
    ]


@pytest.mark.parametrize("value", ["infinity", "0044-03-15 12:00:00.123456+00 BC", "12000-01-01Z"])
def test_a_rollback_restores_every_time_in_every_style(target: Target, value: str) -> None:
    target.apply([user(1)])
    target.run(f"SET ai_coder.as_given = 'on'; UPDATE users SET updated_at = '{value}'")
    held = target.psql("SELECT updated_at FROM users")
    target.run(
        "SET datestyle = 'SQL, DMY'; SET timezone = 'Europe/Berlin';"
        "SET ai_coder.as_given = 'on'; UPDATE users SET name = 'Ada'"
    )
    assert target.psql("SELECT updated_at FROM users") == held


def test_a_batch_that_was_rolled_back_can_be_brought_again(target: Target) -> None:
    rows = [user(1), user(2)]
    applied, _ = target.apply(rows)
    before = target.users()
    _roll_back(target, applied.batch)
    assert target.users() == {}
    target.apply(rows)
    assert target.users() == before


def test_an_old_address_that_another_has_by_now_is_not_taken_from_them(target: Target) -> None:
    target.apply([user(1), user(2)])
    applied, _ = target.apply([user(1, email="new@example.com"), user(2, name="Ada")])
    target.run("INSERT INTO users (email) VALUES ('user1@example.com')")
    done, outcomes = _roll_back(target, applied.batch)
    assert nonzero(done.counts) == {"restored": 1, "kept": 1, "signed_up": 1}
    assert ("new@example.com", "kept") in {(o.email, o.verdict) for o in outcomes}


def test_batches_that_wrote_the_same_users_are_taken_back_last_first(target: Target) -> None:
    """Otherwise a rollback would undo the writes of a later batch."""
    first, _ = target.apply([user(1), user(2)])
    second, _ = target.apply([user(1, name="Ada"), user(2)])
    third, _ = target.apply([user(1), user(2), user(3)])
    before = target.users()
    for batch in (first.batch, second.batch):
        with pytest.raises(TransferRefused, match=f"Batch {third.batch} changed users"):
            _roll_back(target, batch)
    assert target.users() == before
    for batch in (third.batch, second.batch, first.batch):
        _roll_back(target, batch)
    assert target.users() == {}


def test_who_was_kept_and_then_deleted_does_not_come_back_with_the_next_import(
    target: Target,
) -> None:
    applied, _ = target.apply([user(1)])
    target.run("UPDATE users SET name = 'Mine'")
    _roll_back(target, applied.batch)
    target.run("DELETE FROM users")
    again, _ = target.apply([user(1)])
    assert nonzero(again.plan.counts) == {"deleted": 1}
    assert target.users() == {}


@pytest.mark.parametrize("more", ["", "ON DELETE RESTRICT", "DEFERRABLE INITIALLY DEFERRED"])
def test_a_user_whom_another_table_refers_to_stops_the_rollback_and_the_constraint_is_named(
    target: Target, more: str
) -> None:
    applied, _ = target.apply([user(1), user(2)])
    target.run(f"CREATE TABLE snippets (owner UUID CONSTRAINT guard REFERENCES users (id) {more})")
    target.run(f"INSERT INTO snippets VALUES ('{user(1)['id']}')")
    before = target.users()
    with pytest.raises(TransferRefused) as raised:
        _roll_back(target, applied.batch)
    assert "another table refers" in raised.value.sentence
    assert "(constraint guard of snippets)" in raised.value.sentence
    assert target.users() == before


def test_a_user_whom_a_trigger_keeps_is_not_told_to_be_removed(target: Target) -> None:
    applied, _ = target.apply([user(1), user(2)])
    target.run(trigger("RETURN NULL;", "BEFORE DELETE"))
    before = target.users()
    with pytest.raises(TransferRefused, match="not removed or restored; a trigger"):
        _roll_back(target, applied.batch)
    assert target.users() == before


def test_who_deleted_the_account_leaves_no_hash_behind_and_is_not_brought_back(
    target: Target,
) -> None:
    target.apply([user(1), user(2)])
    again = [user(1, name="Ada"), user(2, name="Bob")]
    applied, _ = target.apply(again)
    with closing(postgres_store(DATABASE_URL=target.server.url(target.name))) as store:
        found = store.user(user(1)["id"])
        assert found is not None
        assert store.delete_user(*stored(store, found))
    kept = target.run("SELECT user_id::text FROM import_records WHERE previous IS NOT NULL")
    assert kept == [[user(2)["id"]]]
    plan, _ = target.plan(again)
    assert nonzero(plan.counts) == {"identical": 1, "deleted": 1}
    done, _ = _roll_back(target, applied.batch)
    assert nonzero(done.counts) == {"restored": 1, "gone": 1}
