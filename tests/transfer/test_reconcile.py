"""Who signed up in an outage comes to Postgres once, or into the quarantine with a reason."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.transfer import pending_sign_ups, reconciling, rollback
from shared.transfer.reconciling import quarantine_of
from tests.support.outage import PASSWORD, Site, new_user, running_site, stale, token_of
from tests.support.postgres import Server
from tests.support.reconciliations import CONTENTS, quarantined, reconcile_file, sign_up, store_of
from tests.support.stores import CLIENT, TOKENS, session_of
from tests.support.transfers import HASH, Target, finish, nonzero, user


def test_who_signed_up_is_brought_as_they_are_and_leaves_the_file(
    target: Target, file: Path
) -> None:
    file.write_text(json.dumps([user(1)]))
    ids = sign_up(file, "ada@example.com", "bob@example.com")
    records = json.loads(file.read_text())[1:]
    done, outcomes = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.CREATED: 2}
    assert done.pending == 0
    assert [outcome.user_id for outcome in outcomes] == ids
    assert json.loads(file.read_text()) == [user(1)], "who is not pending stays"
    for record, ((row,)) in zip(records, target.run(CONTENTS), strict=True):
        (found,) = (row,) if isinstance(row, dict) else row
        assert found["id"] == record["id"]
        assert found["email"] == found["email_key"] == record["email"]
        assert (found["password"], found["provider"], found["epoch"]) == (HASH, "local", 0)
        assert datetime.fromisoformat(found["created_at"]) == datetime.fromisoformat(
            record["createdAt"]
        )
    assert not quarantine_of(file).exists()
    events = target.run("SELECT kind, user_id::text FROM auth_events ORDER BY at")
    assert events == [["signup", user_id] for user_id in ids]


def test_doing_it_again_changes_nothing(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com")
    reconcile_file(target, file)
    before = target.run(CONTENTS)
    done, outcomes = reconcile_file(target, file)
    assert (nonzero(done.counts), outcomes) == ({}, [])
    assert target.run(CONTENTS) == before


def test_a_sign_up_that_postgres_has_already_is_settled_and_not_changed(
    target: Target, file: Path
) -> None:
    sign_up(file, "ada@example.com")
    target.apply(json.loads(file.read_text()))
    target.run("UPDATE users SET password = 'newer', epoch = 3")
    before = target.run(CONTENTS)
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.PRESENT: 1}
    assert target.run(CONTENTS) == before
    assert file.read_text() == "[]"


def test_postgres_keeps_an_address_and_the_sign_up_goes_into_quarantine(
    target: Target, file: Path
) -> None:
    (loser,) = sign_up(file, "ada@example.com")
    (record,) = json.loads(file.read_text())
    target.apply([user(1, email="Ada@example.com")])
    before = target.run(CONTENTS)
    done, (outcome,) = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.EMAIL_TAKEN: 1}
    assert (done.quarantined, done.pending) == (1, 0)
    assert target.run(CONTENTS) == before
    assert file.read_text() == "[]"
    (entry,) = quarantined(file)
    assert entry["user"] == record, "nothing of it is lost"
    assert entry["operation"] == record["pending"]["operation"]
    assert entry["reason"] == outcome.reason == reconciling.REASONS["email_taken"]
    assert "up with their own address" in entry["advice"]
    assert quarantine_of(file).stat().st_mode & 0o777 == 0o600
    assert outcome.user_id == loser


def test_a_row_that_the_old_server_wrote_without_a_key_keeps_its_address(
    target: Target, file: Path
) -> None:
    sign_up(file, "ada@example.com")
    target.run("INSERT INTO users (email) VALUES ('ada@example.com')")
    target.run("UPDATE users SET email_key = NULL")
    done, _ = reconcile_file(target, file)
    assert done.quarantined == 1


@pytest.mark.parametrize(
    "changes", [{"id": "no uuid"}, {"email": "nobody"}, {"password": "x"}, {"createdAt": "soon"}]
)
def test_a_record_that_somebody_edited_goes_into_quarantine(
    target: Target, file: Path, changes: dict[str, str]
) -> None:
    sign_up(file, "ada@example.com")
    (record,) = json.loads(file.read_text())
    file.write_text(json.dumps([record | changes]))
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.INVALID: 1}
    assert quarantined(file)[0]["user"] == record | changes
    assert target.run(CONTENTS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"createdAt": 1700000000000},
        {"createdAt": None, "created_at": "2023-11-14T22:13:20Z"},
        {"createdAt": "2023-11-14"},
        {"name": "a\0b"},
        {"epoch": 2**31 - 1},
        {"pending": {"operation": "5a3c1f5e-8a7b-4f6e-9d2c-1b0a9f8e7d6c", "at": "soon"}},
    ],
)
def test_an_edited_record_is_read_as_an_import_reads_it_and_stops_no_other(
    target: Target, file: Path, changes: dict[str, Any]
) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
    ada, bob = json.loads(file.read_text())
    file.write_text(json.dumps([ada | changes, bob]))
    done, _ = reconcile_file(target, file)
    assert done.pending == 0
    assert target.run("SELECT 1 FROM users WHERE email = 'bob@example.com'") == [[1]]
    if "\0" in changes.get("name", ""):
        assert done.quarantined == 1
    elif "created" in str(changes):
        ((created,),) = target.run(
            "SELECT created_at::date::text FROM users WHERE email LIKE 'ada%'"
        )
        assert created == "2023-11-14"


@pytest.mark.parametrize("is_brought_first", [False, True])
def test_a_rollback_of_an_import_takes_nobody_away_who_signed_up_in_an_outage(
    target: Target, file: Path, is_brought_first: bool
) -> None:
    sign_up(file, "ada@example.com")
    done, _ = target.apply(json.loads(file.read_text()))
    assert done.batch is not None
    if is_brought_first:
        reconcile_file(target, file)
    finish(rollback.roll_back(target.database, done.batch, run_by="test"))
    reconcile_file(target, file)
    assert target.run("SELECT email FROM users") == [["ada@example.com"]]
    assert file.read_text() == "[]"


def test_an_id_that_is_another_users_goes_into_quarantine_and_ends_its_sessions(
    target: Target, file: Path
) -> None:
    (taken,) = sign_up(file, "ada@example.com")
    target.apply([user(1, id=taken)])
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.ID_TAKEN: 1}
    assert target.run("SELECT epoch FROM users") == [[1]], "no session of the one is the other's"


def test_what_ended_sessions_ends_them_in_postgres_too(target: Target, file: Path) -> None:
    store, now = store_of(file), time.time()
    ada = store.create_user(new_user("ada@example.com"), HASH)
    bob = store.create_user(new_user("bob@example.com"), HASH)
    target.apply(json.loads(file.read_text()))
    session = session_of(ada, now=now)
    store.revoke_session(session, CLIENT)
    store.revoke_all_sessions(session_of(bob, now=now), CLIENT)
    reconcile_file(target, file)
    assert target.run("SELECT sid, user_id::text FROM revoked_sessions") == [[session.sid, ada.id]]
    assert target.run("SELECT email, epoch FROM users ORDER BY email") == [
        ["ada@example.com", 0],
        ["bob@example.com", 1],
    ]


def test_who_was_deleted_after_the_reconciliation_stays_so(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com")
    before = file.read_bytes()
    reconcile_file(target, file)
    target.run("DELETE FROM users")
    file.write_bytes(before)
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.CREATED: 1}, "it was, once"
    assert target.run(CONTENTS) == []


def test_who_was_brought_and_then_deleted_is_not_imported_again(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com")
    records = json.loads(file.read_text())  # As a kill after the COMMIT leaves them.
    reconcile_file(target, file)
    target.run("DELETE FROM users")
    done, _ = target.apply(records)
    assert nonzero(done.plan.counts) == {"deleted": 1}
    assert target.run(CONTENTS) == []


def test_who_was_imported_and_then_deleted_is_not_brought_again(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com")
    target.apply(json.loads(file.read_text()))
    target.run("DELETE FROM users")
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.PRESENT: 1}
    assert target.run(CONTENTS) == []
    assert file.read_text() == "[]"


def test_a_session_of_who_was_brought_goes_on_and_the_losers_never_reads_as_the_winner(
    postgres: Server, target: Target, tmp_path: Path
) -> None:
    with (
        running_site(postgres, target.name, tmp_path / "a", FALLBACK="full") as site,
        running_site(postgres, target.name, tmp_path / "b", FALLBACK="off") as other,
    ):
        site.leave()
        ada, bob = (token_of(site.sign_up(f"{name}@example.com")) for name in ("ada", "bob"))
        winner = other.sign_up("bob@example.com", "the password of the winner")
        assert winner.status_code == 201
        site.come_back()
        reconcile_file(target, site.file)
        assert site.call("GET", "/api/user", stale(ada)).status_code == 200
        assert other.call("GET", "/api/user", stale(ada)).status_code == 200
        for one in (site, other):
            _check_loser(one, bob)
        assert site.log_in("ada@example.com").status_code == 200
        assert site.log_in("bob@example.com").status_code == 401
        assert site.log_in("bob@example.com", "the password of the winner").status_code == 200


def _check_loser(site: Site, token: str) -> None:
    change = {"currentPassword": PASSWORD, "newPassword": "another horse battery"}
    assert site.call("GET", "/api/user", stale(token)).status_code == 401
    assert site.call("GET", "/api/account", token).status_code == 401
    assert site.call("POST", "/api/password", token, **change).status_code == 401
    assert site.call("DELETE", "/api/account", token, password=PASSWORD).status_code == 401
    assert site.call("POST", "/api/logout", token, everywhere=True).status_code == 401
    fresh = site.call("GET", "/api/user", token).json or {}
    assert fresh["id"] == TOKENS.read(token, time.time()).user.id, "itself, for ten minutes"
