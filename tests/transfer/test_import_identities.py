"""Whom a provider vouches for is the same user on either side of a move, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.application import open_store
from shared.credentials.id_tokens import Identity
from shared.errors import RowsRejected, TransferRefused
from shared.model.users import ExternalIdentity, User
from shared.rules import account_linking
from shared.settings import Settings
from shared.store.contract import Store
from shared.transfer import importing, rollback
from shared.transfer.steps import Progress
from tests.support.stores import CLIENT
from tests.support.transfers import Target, finish, nonzero, source_of, user

GOOGLE_ISSUER = "https://accounts.google.com"
FIREBASE_ISSUER = "https://securetoken.google.com/project"
BY_GOOGLE = Identity(GOOGLE_ISSUER, "1", "ada@example.com", "google", "Ada")
BY_FIREBASE = Identity(
    FIREBASE_ISSUER,
    "f2",
    "bob@example.com",
    "firebase-google",
    None,
    also=(ExternalIdentity(GOOGLE_ISSUER, "2"),),
)


def _of(number: int, *subjects: str, **members: Any) -> dict[str, Any]:
    """Give a user of Google's with these subjects."""
    identities = [{"issuer": GOOGLE_ISSUER, "subject": subject} for subject in subjects]
    return user(number, password=..., provider="google", identities=identities, **members)


def _held(target: Target) -> list[tuple[str, str]]:
    """Give the subjects in Postgres, each with the number of its user."""
    return [(subject, user_id[7:8]) for _, subject, user_id in target.identities()]


def _store(**variables: str) -> Store:
    return open_store(Settings.from_env({"SESSION_SECRET": "x" * 32} | variables))


def _on_json(path: Path) -> Store:
    return _store(USE_DATABASE="false", USERS_FILE=str(path))


def _on_postgres(target: Target) -> Store:
    return _store(DATABASE_URL=target.server.url(target.name))


def _sign_in(store: Store, identity: Identity) -> tuple[User, bool]:
    user, event, _ = account_linking.sign_in(store, identity, None, client=CLIENT)
    return user, event == "signup"


def test_who_signed_in_with_google_is_the_same_user_after_the_move_and_after_the_return(
    target: Target, tmp_path: Path
) -> None:
    first, later = _on_json(tmp_path / "users.json"), _on_json(tmp_path / "back.json")
    database = _on_postgres(target)
    users = [_sign_in(first, identity)[0] for identity in (BY_GOOGLE, BY_FIREBASE)]
    moved, _ = target.apply((tmp_path / "users.json").read_bytes())
    assert nonzero(moved.plan.counts) == {"new": 2}
    assert moved.plan.unknown_members == {}
    (tmp_path / "back.json").write_bytes(target.export())
    for store in (database, later):
        for identity, before in zip((BY_GOOGLE, BY_FIREBASE), users, strict=True):
            assert _sign_in(store, identity) == (before, False)
            found, known = store.account(before.id, sid=""), first.account(before.id, sid="")
            assert found is not None
            assert known is not None
            assert found.identities == known.identities
    database.close()


def test_who_signed_up_with_google_here_is_the_same_user_in_the_file_and_in_a_fresh_database(
    target: Target, tmp_path: Path
) -> None:
    database, path = _on_postgres(target), tmp_path / "users.json"
    users = [_sign_in(database, identity)[0] for identity in (BY_GOOGLE, BY_FIREBASE)]
    database.close()
    path.write_bytes(target.export())
    for identity, before in zip((BY_GOOGLE, BY_FIREBASE), users, strict=True):
        assert _sign_in(_on_json(path), identity) == (before, False)
    before_import = target.identities()
    target.run("TRUNCATE users, identities")
    target.apply(path.read_bytes())
    assert target.identities() == before_import
    assert target.export() == path.read_bytes()


def test_a_user_who_linked_an_identity_in_postgres_has_changed_there(target: Target) -> None:
    local = user(1, email=BY_GOOGLE.email)
    target.apply([local])
    database = _on_postgres(target)
    gmail = Identity(GOOGLE_ISSUER, "1", BY_GOOGLE.email, "google", None, is_authoritative=True)
    _sign_in(database, gmail)
    database.close()
    for row in (local, local | {"name": "Ada"}):
        applied, (outcome,) = target.apply([row])
        assert (applied.batch, outcome.verdict) == (None, "kept")
    assert _held(target) == [("1", "1")]


def test_what_changed_in_the_source_is_brought_in_its_order_and_taken_back(target: Target) -> None:
    target.apply([_of(1, "b", "a"), _of(2, "c"), user(3)])
    tables = (
        "SELECT to_jsonb(u) - 'epoch', i FROM users u LEFT JOIN identities i ON i.user_id = u.id"
        " ORDER BY 1, 2"
    )
    before = target.psql(tables)
    applied, _ = target.apply([_of(1, "z", "a", "b"), _of(2), _of(3, "d")])
    assert nonzero(applied.plan.counts) == {"changed": 3}
    assert _held(target) == [("z", "1"), ("a", "1"), ("b", "1"), ("d", "3")]
    finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert target.psql(tables) == before


def test_a_rollback_takes_the_identities_of_whom_it_removes(target: Target) -> None:
    applied, _ = target.apply([_of(1, "a"), _of(2, "b")])
    target.run("UPDATE users SET name = 'Later' WHERE email = 'user2@example.com'")
    finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert _held(target) == [("b", "2")]


def test_an_identity_that_another_has_by_now_is_not_taken_from_them_by_a_rollback(
    target: Target,
) -> None:
    target.apply([_of(1, "a")])
    applied, _ = target.apply([_of(1)])
    target.run("INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'new@example.com')")
    target.run(
        f"INSERT INTO identities SELECT '{GOOGLE_ISSUER}', 'a', id FROM users"
        " WHERE email = 'new@example.com'"
    )
    before = target.identities()
    done, _ = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert nonzero(done.counts) == {"kept": 1, "signed_up": 1}
    assert target.identities() == before


def test_postgres_keeps_an_identity_that_another_user_has_there(target: Target) -> None:
    target.apply([_of(1, "a", "b"), user(2)])
    rows = [_of(2, "a"), _of(3, "c", "b"), _of(4, "d")]
    before = target.dump()
    with pytest.raises(RowsRejected):
        target.apply(rows)
    assert target.dump() == before
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert nonzero(applied.plan.counts) == {"identity_taken": 2, "new": 1}
    assert [(o.row, o.verdict, o.other_id) for o in outcomes] == [
        (1, "identity_taken", user(1)["id"]),
        (2, "identity_taken", user(1)["id"]),
    ]
    assert _held(target) == [("a", "1"), ("b", "1"), ("d", "4")]


def test_rows_that_claim_one_identity_are_all_rejected(target: Target) -> None:
    rows = [_of(1, "a"), _of(2, "b"), _of(3, "c", "a")]
    applied, outcomes = target.apply(rows, skip_invalid=True)
    assert [(o.row, o.verdict, o.other_row) for o in outcomes] == [
        (1, "duplicate", 3),
        (3, "duplicate", 1),
    ]
    assert nonzero(applied.plan.counts) == {"new": 1, "duplicate": 2}
    assert _held(target) == [("b", "2")]


def test_of_two_rows_with_one_address_the_one_that_wins_keeps_its_identity(target: Target) -> None:
    applied, (outcome,) = target.apply(
        [_of(1, "a", email="ADA@example.com"), _of(2, "a", email="ada@example.com")],
        skip_invalid=True,
    )
    assert nonzero(applied.plan.counts) == {"new": 1, "duplicate": 1}
    assert outcome.row == 1
    assert _held(target) == [("a", "2")]


def test_a_user_whose_identity_is_anothers_gives_no_address_up(target: Target) -> None:
    target.apply([user(1), _of(2, "a")])
    rows = [_of(1, "a", email="new@example.com"), user(3, email="user1@example.com")]
    planned, _ = target.plan(rows)
    assert nonzero(planned.counts) == {"identity_taken": 1, "email_taken": 1}
    applied, _ = target.apply(rows, skip_invalid=True)
    assert applied.batch is None


def test_who_takes_an_identity_while_an_import_runs_has_it(target: Target) -> None:
    running = importing.apply(
        target.database, source_of([_of(1, "a")]), batch_id="batch", run_by="test"
    )
    while next(running) != Progress("write", 1):
        pass
    database = _on_postgres(target)
    _sign_in(database, Identity(GOOGLE_ISSUER, "a", "else@example.com", "google", None))
    database.close()
    with pytest.raises(TransferRefused, match="run it again"):
        finish(running)
    assert [subject for _, subject, _ in target.identities()] == ["a"]


def test_a_verification_sees_an_identity_that_was_changed_in_the_table(target: Target) -> None:
    rows = [_of(1, "a"), _of(2, "b"), user(3)]
    target.apply(rows)
    assert nonzero(target.verify(rows)[0].counts) == {"identical": 3}
    target.run("UPDATE identities SET subject = 'z' WHERE subject = 'a'")
    target.run(f"INSERT INTO identities VALUES ('i', 's', '{user(3)['id']}')")
    assert nonzero(target.verify(rows)[0].counts) == {"altered": 2, "identical": 1}


def test_identities_that_do_not_arrive_as_the_source_has_them_roll_the_import_back(
    target: Target,
) -> None:
    target.run(
        "CREATE FUNCTION garble() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.subject = upper(NEW.subject); RETURN NEW; END'"
    )
    target.run(
        "CREATE TRIGGER garble BEFORE INSERT ON identities FOR EACH ROW EXECUTE FUNCTION garble()"
    )
    before = target.dump()
    with pytest.raises(TransferRefused, match=r"row 1 .* differs from the source"):
        target.apply([_of(1, "a")])
    assert target.dump() == before
