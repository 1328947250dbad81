"""Whatever befalls a reconciliation, nobody is lost and nobody comes twice."""

from __future__ import annotations

import errno
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared import files
from shared.errors import StoreUnavailable, StoreUnreachable
from shared.transfer import pending_sign_ups
from shared.transfer.reconciling import quarantine_of, reconcile
from shared.transfer.steps import Outcome
from tests.support import commands
from tests.support.foreign_objects import cases, trigger
from tests.support.interceptor import Interceptor, Message
from tests.support.postgres import Server
from tests.support.reconciliations import quarantined, reconcile_file, sign_up, store_of
from tests.support.transfers import Target, nonzero, user


@pytest.mark.parametrize("is_done", [False, True])
def test_a_commit_whose_answer_is_lost_is_settled_by_looking(
    postgres: Server, target: Target, file: Path, is_done: bool
) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
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
        done, _ = reconcile_file(through, file)
    assert cut
    assert nonzero(done.counts) == {pending_sign_ups.CREATED: 2}
    assert target.run("SELECT count(*) FROM users") == [[2]]
    assert target.run("SELECT count(*) FROM applied_ops") == [[2]]


def test_a_database_that_goes_away_leaves_the_rest_pending(
    postgres: Server, target: Target, file: Path
) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
    with Interceptor(postgres) as between:
        between.close_after_commit()
        through = Target(postgres, target.name, port=between.port)
        with pytest.raises(StoreUnreachable):
            reconcile_file(through, file)
    (record,) = json.loads(file.read_text())
    assert record["email"] == "bob@example.com"
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.CREATED: 1}


def test_a_quarantine_that_cannot_be_written_leaves_the_sign_up_pending(
    target: Target, file: Path
) -> None:
    sign_up(file, "ada@example.com")
    target.apply([user(1, email="ada@example.com")])
    quarantine_of(file).mkdir()
    before = file.read_bytes()
    with pytest.raises(OSError, match="not a regular file"):
        reconcile_file(target, file)
    assert file.read_bytes() == before
    quarantine_of(file).rmdir()
    reconcile_file(target, file)
    assert len(quarantined(file)) == 1


def test_a_quarantine_has_each_operation_once(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
    target.apply([user(n, email=f"{name}@example.com") for n, name in ((1, "ada"), (2, "bob"))])
    before = file.read_bytes()
    reconcile_file(target, file)
    file.write_bytes(before)
    reconcile_file(target, file)
    assert len(quarantined(file)) == 2


def test_a_quarantine_that_somebody_edited_is_kept_as_it_is(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com")
    target.apply([user(1, email="ada@example.com")])
    quarantine_of(file).write_text("a note of mine")
    reconcile_file(target, file)
    note, line = quarantine_of(file).read_text().splitlines()
    assert note == "a note of mine"
    assert json.loads(line)["outcome"] == "email_taken"


REFUSALS = {
    "a unique name": ("ALTER TABLE users ADD CONSTRAINT guard UNIQUE (name)", "guard"),
    "a unique name at the end": (
        "ALTER TABLE users ADD CONSTRAINT guard UNIQUE (name) DEFERRABLE INITIALLY DEFERRED",
        "guard",
    ),
    "a check": ("ALTER TABLE users ADD CONSTRAINT guard CHECK (email NOT LIKE 'bob%')", "guard"),
    "a trigger that raises": (
        trigger("IF NEW.email LIKE 'bob%' THEN RAISE 'no %', NEW.email; END IF; RETURN NEW;"),
        "guard()",
    ),
    "a trigger that says nothing": (
        trigger("RETURN CASE WHEN NEW.email NOT LIKE 'bob%' THEN NEW END;"),
        "no row came into users",
    ),
    "a trigger on the audit": (
        trigger(
            "IF EXISTS (SELECT FROM users WHERE id = NEW.user_id AND email LIKE 'bob%')"
            " THEN RAISE 'no %', NEW.user_id; END IF; RETURN NEW;",
            table="auth_events",
        ),
        "guard()",
    ),
}


@pytest.mark.parametrize(
    "case", cases(REFUSALS, ["a unique name at the end", "a trigger that says nothing"])
)
def test_a_sign_up_that_the_schema_refuses_stays_pending_and_the_others_are_brought(
    target: Target, file: Path, case: str
) -> None:
    change, named = REFUSALS[case]
    target.run(change)
    sign_up(file, "ada@example.com", "bob@example.com", "eve@example.com")
    records = json.loads(file.read_text())
    records[0]["name"] = records[1]["name"] = "Sam"
    records[2]["name"] = "Eve"
    file.write_text(json.dumps(records))
    done, outcomes = reconcile_file(target, file)
    assert nonzero(done.counts) == {"created": 2, "refused": 1}
    assert (done.pending, done.refused, done.quarantined) == (1, 1, 0)
    assert [outcome.verdict for outcome in outcomes] == ["created", "refused", "created"]
    assert outcomes[1].user_id == records[1]["id"]
    assert named in outcomes[1].reason
    assert "bob@" not in outcomes[1].reason
    assert json.loads(file.read_text()) == [records[1]]
    assert not quarantine_of(file).exists()
    target.run(
        "ALTER TABLE users DROP CONSTRAINT IF EXISTS guard; DROP FUNCTION IF EXISTS guard CASCADE"
    )
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {"created": 1}


def test_an_address_is_taken_although_another_constraint_is_violated_as_well(
    target: Target, file: Path
) -> None:
    target.run("INSERT INTO users (email, name) VALUES ('ada@example.com', 'Sam')")
    target.run("UPDATE users SET email_key = NULL; ALTER TABLE users ADD UNIQUE (name)")
    sign_up(file, "ada@example.com")
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {"email_taken": 1}


def test_what_was_brought_is_told_although_the_file_cannot_be_written(
    target: Target, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_up(file, "ada@example.com")

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "replace", is_full)
    events = reconcile(target.database, store_of(file), quarantine_of(file))
    outcome = next(events)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == "created"
    with pytest.raises(StoreUnavailable, match="No space left"):
        next(events)
    assert target.run("SELECT count(*) FROM users") == [[1]]


@pytest.mark.parametrize("is_copy", [False, True])
def test_two_reconcilers_at_once_bring_each_user_once(
    target: Target, tmp_path: Path, file: Path, is_copy: bool
) -> None:
    emails = [f"user{number}@example.com" for number in range(8)]
    sign_up(file, *emails)
    target.apply([user(n, email=emails[n]) for n in range(3)])
    files = [file]
    if is_copy:
        (tmp_path / "copy").mkdir()
        files.append(Path(shutil.copy(file, tmp_path / "copy" / "users.json")))
    with ThreadPoolExecutor(4) as threads:
        done = list(
            threads.map(lambda path: reconcile_file(target, path)[0], files * (4 // len(files)))
        )
    assert all(one.pending == 0 for one in done)
    assert target.run("SELECT count(*), count(DISTINCT email_key) FROM users") == [[8, 8]]
    assert target.run("SELECT count(*) FROM applied_ops WHERE outcome = 'created'") == [[5]]
    for path in files:
        assert path.read_text() == "[]"
        assert len(quarantined(path)) == 3


@pytest.mark.parametrize("step", [29, pytest.param(2, marks=pytest.mark.long)])
def test_a_kill_at_any_step_loses_nothing_and_does_nothing_twice(
    postgres: Server, target: Target, file: Path, step: int
) -> None:
    url = postgres.url(target.name)
    with commands.Stopped(signal.SIGKILL, url, file, "reconcile") as stopped:
        sign_up(file, "ada@example.com", "bob@example.com")
        _, lines = stopped.at(0)
        assert lines > 60
        for number in range(1, lines, step):
            quarantine_of(file).unlink(missing_ok=True)
            target.run("TRUNCATE users, applied_ops CASCADE")
            file.unlink(missing_ok=True)
            target.run("INSERT INTO users (email) VALUES ('bob@example.com')")
            (ada, _) = sign_up(file, "ada@example.com", "bob@example.com")
            code, _ = stopped.at(number)
            assert code in (-9, 7)
            reconcile_file(target, file)
            assert file.read_text() == "[]"
            assert [entry["user"]["email"] for entry in quarantined(file)] == ["bob@example.com"]
            assert target.run("SELECT id::text FROM users WHERE email LIKE 'ada%'") == [[ada]]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (trigger("NEW.password = NULL; RETURN NEW;"), "puts other values into users"),
        (trigger("NEW.id = gen_random_uuid(); RETURN NEW;"), "puts other values into users"),
        (trigger("RETURN NULL;", table="applied_ops"), "no row came into applied_ops"),
    ],
)
def test_a_sign_up_that_a_trigger_would_spoil_is_pending_still(
    target: Target, file: Path, sql: str, reason: str
) -> None:
    sign_up(file, "ada@example.com")
    before = file.read_bytes()
    target.run(sql)
    done, (outcome,) = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.REFUSED: 1}
    assert reason in outcome.reason
    assert file.read_bytes() == before
    assert target.run("SELECT count(*) FROM users") == [[0]]
    target.run("DROP FUNCTION guard() CASCADE")
    done, _ = reconcile_file(target, file)
    assert nonzero(done.counts) == {pending_sign_ups.CREATED: 1}
