"""What the command and the function tell of a reconciliation."""

from __future__ import annotations

import json
from pathlib import Path

from shared.transfer.reconciling import quarantine_of
from tests.support import commands
from tests.support.in_process import served
from tests.support.interceptor import Interceptor
from tests.support.outage import ADMIN
from tests.support.postgres import Server
from tests.support.reconciliations import sign_up
from tests.support.transfers import Target, nonzero, user


def test_the_command_tells_what_became_of_whom(target: Target, file: Path) -> None:
    url = target.server.url(target.name)
    sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile")
    assert (ended.code, ended.error.count("\n")) == (0, 1)
    assert "created  1  written to Postgres" in ended.output
    sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile", "--json")
    assert ended.code == 7
    lines = [json.loads(line) for line in ended.output.splitlines()]
    assert [line["event"] for line in lines] == ["outcome", "result", "error"]
    assert lines[1]["quarantine"] == str(quarantine_of(file))
    assert f"1 sign-up is in {quarantine_of(file)}" in ended.error
    assert "Traceback" not in ended.error


def test_the_offer_tells_and_does_nothing_where_nobody_can_be_asked(
    target: Target, file: Path
) -> None:
    url = target.server.url(target.name)
    assert commands.run(url, file, "reconcile", "--offer") == commands.Ended(0, "", "")
    sign_up(file, "ada@example.com")
    ended = commands.run(url, file, "reconcile", "--offer")
    assert ended.code == 0
    assert "1 sign-up is not yet in Postgres. `make migrate-reconcile`" in ended.output
    assert len(json.loads(file.read_text())) == 1


def test_the_function_reconciles_without_telling_addresses(target: Target, file: Path) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
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
    sign_up(file, "ada@example.com")
    before = file.read_bytes()
    ended = commands.run("postgresql://u:p@127.0.0.1:1/d", file, "reconcile")
    assert ended.code == 1
    assert "Database error: cannot connect" in ended.error
    assert file.read_bytes() == before


def test_the_command_tells_what_is_still_pending_and_what_refuses_it(
    target: Target, file: Path
) -> None:
    url = target.server.url(target.name)
    sign_up(file, "ada@example.com", "bob@example.com")
    target.run("ALTER TABLE users ADD CONSTRAINT guard CHECK (email NOT LIKE 'bob%')")
    ended = commands.run(url, file, "reconcile")
    assert ended.code == 1
    assert "created  1  written to Postgres" in ended.output
    assert "refused  1  still pending" in ended.output
    assert "bob@example.com: refused. The database refuses it" in ended.error
    assert 'violates check constraint "guard"' in ended.error
    assert "The database refuses 1 sign-up, still pending." in ended.error
    assert "Nothing was changed" not in ended.error
    assert "Traceback" not in ended.error


def test_the_command_tells_what_it_has_changed_before_the_database_went_away(
    postgres: Server, target: Target, file: Path
) -> None:
    sign_up(file, "ada@example.com", "bob@example.com")
    with Interceptor(postgres) as between:
        assert target.run("SELECT count(*) FROM users") == [[0]]
        between.close_after_commit()
        ended = commands.run(postgres.url(target.name, port=between.port), file, "reconcile")
    assert ended.code == 1
    assert "Before that 1 of 2 sign-ups were reconciled; the others are still pending." in (
        ended.error
    )
    assert "Nothing was changed" not in ended.error


def test_a_users_file_that_cannot_be_read_is_one_sentence_and_left_as_it_is(file: Path) -> None:
    file.write_text("{")
    ended = commands.run("postgresql://u:p@127.0.0.1:1/d", file, "reconcile")
    assert (ended.code, file.read_text()) == (1, "{")
    assert ended.error.startswith(f"Cannot go on: {file} is refused and left as it is: The JSON")
    assert ended.error.endswith("parsed. Nothing was changed.\n")
