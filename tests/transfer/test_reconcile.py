"""Who signed up in an outage comes to Postgres once, or into the quarantine with a reason."""

from __future__ import annotations

import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.errors import StoreUnreachable
from shared.settings import Settings
from shared.store.json_file.store import JsonFileStore
from shared.transfer import operations, reconciling, rollback
from shared.transfer.reconciling import Reconciled, quarantine_of, reconcile
from shared.transfer.steps import Outcome
from tests.support import commands
from tests.support.in_process import served
from tests.support.interceptor import Interceptor, Message
from tests.support.outage import PASSWORD, Site, new_user, running_site, stale, token_of
from tests.support.postgres import Server
from tests.support.stores import CLIENT, TOKENS, session_of
from tests.support.transfers import HASH, Target, finish, nonzero, user

ADMIN = "YWRtaW4gdG9rZW4gZm9yIHRlc3RzIG9ubHksIG9rYXk"
_CONTENTS = "SELECT to_jsonb(u) FROM users u ORDER BY email"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The users file of an instance."""
    return tmp_path / "users.json"


def _store(file: Path, *, is_fallback: bool = True) -> JsonFileStore:
    return JsonFileStore(Settings(users_file=file), is_fallback=is_fallback)


def _sign_up(file: Path, *emails: str) -> list[str]:
    """Sign users up in an outage, and give their ids."""
    return [_store(file).create_user(new_user(email), HASH).id for email in emails]


def _reconcile(target: Target, file: Path) -> tuple[Reconciled, list[Outcome]]:
    return finish(reconcile(target.database, _store(file), quarantine_of(file)))


def _quarantined(file: Path) -> list[dict[str, Any]]:
    path = quarantine_of(file)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_who_signed_up_is_brought_as_they_are_and_leaves_the_file(
    target: Target, file: Path
) -> None:
    file.write_text(json.dumps([user(1)]))
    ids = _sign_up(file, "ada@example.com", "bob@example.com")
    records = json.loads(file.read_text())[1:]
    done, outcomes = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.CREATED: 2}
    assert done.pending == 0
    assert [outcome.user_id for outcome in outcomes] == ids
    assert json.loads(file.read_text()) == [user(1)], "who is not pending stays"
    for record, ((row,)) in zip(records, target.run(_CONTENTS), strict=True):
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
    _sign_up(file, "ada@example.com")
    _reconcile(target, file)
    before = target.run(_CONTENTS)
    done, outcomes = _reconcile(target, file)
    assert (nonzero(done.counts), outcomes) == ({}, [])
    assert target.run(_CONTENTS) == before


def test_a_sign_up_that_postgres_has_already_is_settled_and_not_changed(
    target: Target, file: Path
) -> None:
    _sign_up(file, "ada@example.com")
    target.apply(json.loads(file.read_text()))
    target.run("UPDATE users SET password = 'newer', epoch = 3")
    before = target.run(_CONTENTS)
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.PRESENT: 1}
    assert target.run(_CONTENTS) == before
    assert file.read_text() == "[]"


def test_postgres_keeps_an_address_and_the_sign_up_goes_into_quarantine(
    target: Target, file: Path
) -> None:
    (loser,) = _sign_up(file, "ada@example.com")
    (record,) = json.loads(file.read_text())
    target.apply([user(1, email="Ada@example.com")])
    before = target.run(_CONTENTS)
    done, (outcome,) = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.EMAIL_TAKEN: 1}
    assert (done.quarantined, done.pending) == (1, 0)
    assert target.run(_CONTENTS) == before
    assert file.read_text() == "[]"
    (entry,) = _quarantined(file)
    assert entry["user"] == record, "nothing of it is lost"
    assert entry["operation"] == record["pending"]["operation"]
    assert entry["reason"] == outcome.reason == reconciling.REASONS["email_taken"]
    assert "sign up with an address of their own" in entry["advice"]
    assert quarantine_of(file).stat().st_mode & 0o777 == 0o600
    assert outcome.user_id == loser


def test_a_row_that_the_old_server_wrote_without_a_key_keeps_its_address(
    target: Target, file: Path
) -> None:
    _sign_up(file, "ada@example.com")
    target.run("INSERT INTO users (email) VALUES ('ada@example.com')")
    target.run("UPDATE users SET email_key = NULL")
    done, _ = _reconcile(target, file)
    assert done.quarantined == 1


@pytest.mark.parametrize(
    "changes", [{"id": "no uuid"}, {"email": "nobody"}, {"password": "x"}, {"createdAt": "soon"}]
)
def test_a_record_that_somebody_edited_goes_into_quarantine(
    target: Target, file: Path, changes: dict[str, str]
) -> None:
    _sign_up(file, "ada@example.com")
    (record,) = json.loads(file.read_text())
    file.write_text(json.dumps([record | changes]))
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.INVALID: 1}
    assert _quarantined(file)[0]["user"] == record | changes
    assert target.run(_CONTENTS) == []


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
    _sign_up(file, "ada@example.com", "bob@example.com")
    ada, bob = json.loads(file.read_text())
    file.write_text(json.dumps([ada | changes, bob]))
    done, _ = _reconcile(target, file)
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
    _sign_up(file, "ada@example.com")
    done, _ = target.apply(json.loads(file.read_text()))
    assert done.batch is not None
    if is_brought_first:
        _reconcile(target, file)
    finish(rollback.roll_back(target.database, done.batch, run_by="test"))
    _reconcile(target, file)
    assert target.run("SELECT email FROM users") == [["ada@example.com"]]
    assert file.read_text() == "[]"


def test_an_id_that_is_another_users_goes_into_quarantine_and_ends_its_sessions(
    target: Target, file: Path
) -> None:
    (taken,) = _sign_up(file, "ada@example.com")
    target.apply([user(1, id=taken)])
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.ID_TAKEN: 1}
    assert target.run("SELECT epoch FROM users") == [[1]], "no session of the one is the other's"


def test_what_ended_sessions_ends_them_in_postgres_too(target: Target, file: Path) -> None:
    store, now = _store(file), time.time()
    ada = store.create_user(new_user("ada@example.com"), HASH)
    bob = store.create_user(new_user("bob@example.com"), HASH)
    target.apply(json.loads(file.read_text()))
    session = session_of(ada, now=now)
    store.revoke_session(session, CLIENT)
    store.revoke_all_sessions(session_of(bob, now=now), CLIENT)
    _reconcile(target, file)
    assert target.run("SELECT sid, user_id::text FROM revoked_sessions") == [[session.sid, ada.id]]
    assert target.run("SELECT email, epoch FROM users ORDER BY email") == [
        ["ada@example.com", 0],
        ["bob@example.com", 1],
    ]


def test_who_was_deleted_after_the_reconciliation_stays_so(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com")
    before = file.read_bytes()
    _reconcile(target, file)
    target.run("DELETE FROM users")
    file.write_bytes(before)
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.CREATED: 1}, "it was, once"
    assert target.run(_CONTENTS) == []


def test_who_was_brought_and_then_deleted_is_not_imported_again(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com")
    records = json.loads(file.read_text())  # As a kill after the COMMIT leaves them.
    _reconcile(target, file)
    target.run("DELETE FROM users")
    done, _ = target.apply(records)
    assert nonzero(done.plan.counts) == {"deleted": 1}
    assert target.run(_CONTENTS) == []


def test_who_was_imported_and_then_deleted_is_not_brought_again(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com")
    target.apply(json.loads(file.read_text()))
    target.run("DELETE FROM users")
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.PRESENT: 1}
    assert target.run(_CONTENTS) == []
    assert file.read_text() == "[]"


# Faults


@pytest.mark.parametrize("is_done", [False, True])
def test_a_commit_whose_answer_is_lost_is_settled_by_looking(
    postgres: Server, target: Target, file: Path, is_done: bool
) -> None:
    _sign_up(file, "ada@example.com", "bob@example.com")
    with Interceptor(postgres) as between:
        cut: list[Message] = []

        def watch(message: Message) -> bool:
            found = message.is_committed if is_done else message.is_commit
            if found and not cut:
                cut.append(message)
                return True
            return False

        between.watch = watch
        through = Target(postgres, target.name, port=between.port)
        done, _ = _reconcile(through, file)
    assert cut
    assert nonzero(done.counts) == {operations.CREATED: 2}
    assert target.run("SELECT count(*) FROM users") == [[2]]
    assert target.run("SELECT count(*) FROM applied_ops") == [[2]]


def test_a_database_that_goes_away_leaves_the_rest_pending(
    postgres: Server, target: Target, file: Path
) -> None:
    _sign_up(file, "ada@example.com", "bob@example.com")
    with Interceptor(postgres) as between:

        def watch(message: Message) -> bool:
            if message.is_committed:
                between.is_open = False
            return False

        between.watch = watch
        through = Target(postgres, target.name, port=between.port)
        with pytest.raises(StoreUnreachable):
            _reconcile(through, file)
    (record,) = json.loads(file.read_text())
    assert record["email"] == "bob@example.com"
    done, _ = _reconcile(target, file)
    assert nonzero(done.counts) == {operations.CREATED: 1}


def test_a_quarantine_that_cannot_be_written_leaves_the_sign_up_pending(
    target: Target, file: Path
) -> None:
    _sign_up(file, "ada@example.com")
    target.apply([user(1, email="ada@example.com")])
    quarantine_of(file).mkdir()
    before = file.read_bytes()
    with pytest.raises(OSError, match="not a regular file"):
        _reconcile(target, file)
    assert file.read_bytes() == before
    quarantine_of(file).rmdir()
    _reconcile(target, file)
    assert len(_quarantined(file)) == 1


def test_a_quarantine_has_each_operation_once(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com", "bob@example.com")
    target.apply([user(n, email=f"{name}@example.com") for n, name in ((1, "ada"), (2, "bob"))])
    before = file.read_bytes()
    _reconcile(target, file)
    file.write_bytes(before)
    _reconcile(target, file)
    assert len(_quarantined(file)) == 2


def test_a_quarantine_that_somebody_edited_is_kept_as_it_is(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com")
    target.apply([user(1, email="ada@example.com")])
    quarantine_of(file).write_text("a note of mine")
    _reconcile(target, file)
    note, line = quarantine_of(file).read_text().splitlines()
    assert note == "a note of mine"
    assert json.loads(line)["outcome"] == "email_taken"


@pytest.mark.parametrize("is_copy", [False, True])
def test_two_reconcilers_at_once_bring_each_user_once(
    target: Target, tmp_path: Path, file: Path, is_copy: bool
) -> None:
    emails = [f"user{number}@example.com" for number in range(20)]
    _sign_up(file, *emails)
    target.apply([user(n, email=emails[n]) for n in range(5)])
    files = [file]
    if is_copy:
        (tmp_path / "copy").mkdir()
        files.append(Path(shutil.copy(file, tmp_path / "copy" / "users.json")))
    with ThreadPoolExecutor(4) as threads:
        done = list(
            threads.map(lambda path: _reconcile(target, path)[0], files * (4 // len(files)))
        )
    assert all(one.pending == 0 for one in done)
    assert target.run("SELECT count(*), count(DISTINCT email_key) FROM users") == [[20, 20]]
    assert target.run("SELECT count(*) FROM applied_ops WHERE outcome = 'created'") == [[15]]
    for path in files:
        assert path.read_text() == "[]"
        assert len(_quarantined(path)) == 5


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_any_step_loses_nothing_and_does_nothing_twice(
    postgres: Server, target: Target, file: Path, step: int
) -> None:
    url = postgres.url(target.name)
    with commands.Stopped(signal.SIGKILL, url, file, "reconcile") as stopped:
        _sign_up(file, "ada@example.com", "bob@example.com")
        _, lines = stopped.at(0)
        assert lines > 60
        for number in range(1, lines, step):
            quarantine_of(file).unlink(missing_ok=True)
            target.run("TRUNCATE users, applied_ops CASCADE")
            file.unlink(missing_ok=True)
            target.run("INSERT INTO users (email) VALUES ('bob@example.com')")
            (ada, _) = _sign_up(file, "ada@example.com", "bob@example.com")
            code, _ = stopped.at(number)
            assert code in (-9, 7)
            _reconcile(target, file)
            assert file.read_text() == "[]"
            assert [entry["user"]["email"] for entry in _quarantined(file)] == ["bob@example.com"]
            assert target.run("SELECT id::text FROM users WHERE email LIKE 'ada%'") == [[ada]]


# Sessions


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
        _reconcile(target, site.file)
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


# The command and the function


def test_the_command_tells_what_became_of_whom(target: Target, file: Path) -> None:
    url = target.server.url(target.name)
    _sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile")
    assert (ended.code, ended.error.count("\n")) == (0, 1)
    assert "created  1  brought to Postgres" in ended.output
    _sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile", "--json")
    assert ended.code == 7
    lines = [json.loads(line) for line in ended.output.splitlines()]
    assert [line["event"] for line in lines] == ["outcome", "result", "error"]
    assert lines[1]["quarantine"] == str(quarantine_of(file))
    assert f"1 sign-ups are in {quarantine_of(file)}" in ended.error
    assert "Traceback" not in ended.error


def test_the_offer_tells_and_does_nothing_where_nobody_can_be_asked(
    target: Target, file: Path
) -> None:
    url = target.server.url(target.name)
    assert commands.run(url, file, "reconcile", "--offer") == commands.Ended(0, "", "")
    _sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile", "--offer")
    assert ended.code == 0
    assert "1 users signed up while Postgres was away. `make migrate-reconcile`" in ended.output
    assert len(json.loads(file.read_text())) == 1


def test_the_function_reconciles_without_telling_addresses(target: Target, file: Path) -> None:
    _sign_up(file, "ada@example.com", "bob@example.com")
    target.apply([user(1, email="bob@example.com")])
    settings = {
        "DATABASE_URL": target.server.url(target.name),
        "USERS_FILE": str(file),
        "ADMIN_TOKEN": ADMIN,
    }
    with served(**settings) as app:
        headers = [("Authorization", f"Bearer {ADMIN}"), ("Content-Type", "application/json")]
        answer = app.send("POST", "/api/migrate", headers, b'{"action": "reconcile"}')
        refused = app.send("POST", "/api/migrate", headers[1:], b'{"action": "reconcile"}')
    assert refused.status_code == 401
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["event"] for line in lines] == ["outcome", "outcome", "result"]
    assert nonzero(lines[-1]["counts"]) == {"created": 1, "email_taken": 1}
    assert "@" not in answer.text
    assert "$2a$" not in answer.text


def test_a_database_that_is_away_is_a_sentence_and_leaves_all_pending(file: Path) -> None:
    _sign_up(file, "ada@example.com")
    before = file.read_bytes()
    ended = commands.run("postgresql://u:p@127.0.0.1:1/d", file, "reconcile")
    assert ended.code == 1
    assert "The database cannot do it: cannot connect" in ended.error
    assert file.read_bytes() == before
