"""Times that PostgreSQL has and Python has not stop nothing, for their user or for others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shared.transfer import rollback
from shared.transfer.users_table import DIGEST, HELD
from tests.support.commands import invoke
from tests.support.emulator import SECRET, environment
from tests.support.in_process import served
from tests.support.outage import ADMIN, PASSWORD, token_of
from tests.support.postgres import Server
from tests.support.transfers import Target, finish, nonzero, user

TIMES = {
    "infinity": None,
    "-infinity": None,
    "0044-03-15 12:00:00+00 BC": None,
    "12000-01-01 00:00:00+00": None,
    "294276-12-31 23:59:59.999999+00": None,
    "0001-01-01 00:00:00+00": "0001-01-01T00:00:00.000Z",
    "1850-06-01 00:00:00+00:53:28": "1850-05-31T23:06:32.000Z",
    "9999-12-31 23:59:59.999999+00": "9999-12-31T23:59:59.999Z",
}
"""And what a user is told of each."""


@pytest.fixture
def target(target: Target) -> Target:
    """A database whose sessions have a zone with odd offsets in the past."""
    target.run(f"ALTER DATABASE {target.name} SET timezone TO 'Europe/Berlin'")
    return target


@pytest.fixture
def copy(postgres: Server, make_database: Callable[..., str]) -> Iterator[Target]:
    """Another database, where an export can be brought."""
    with closing(Target(postgres, make_database())) as opened:
        yield opened
    postgres.drop_database(opened.name)


def _set(target: Target, email: str, time: str) -> None:
    target.run(
        "ALTER TABLE users DISABLE TRIGGER USER;"
        f"UPDATE users SET created_at = '{time}', updated_at = '{time}' WHERE email = '{email}';"
        "ALTER TABLE users ENABLE TRIGGER USER"
    )


def test_users_are_told_their_times_or_null_and_operators_their_statistics(target: Target) -> None:
    bearer = ("Authorization", f"Bearer {ADMIN}")
    with served(DATABASE_URL=target.server.url(target.name), ADMIN_TOKEN=ADMIN) as app:
        answer = app.post("/api/signup", {"email": "ada@example.com", "password": PASSWORD})
        session = ("Cookie", f"session={token_of(answer)}")
        for time, expected in TIMES.items():
            _set(target, "ada@example.com", time)
            account = app.send("GET", "/api/account", [session])
            assert account.status_code == 200, time
            assert account.json is not None
            assert [account.json["createdAt"], account.json["updatedAt"]] == [expected] * 2
            statistics = app.send("GET", "/api/stats", [bearer])
            assert statistics.status_code == 200, time
            assert statistics.json is not None
            assert statistics.json["total_users"] == 1
            assert statistics.json["users_last_month"] == 0
            assert app.send("GET", "/api/dashboard", [bearer]).status_code == 200, time


def test_such_a_user_is_exported_with_null_and_named_and_hinders_no_other_command(
    target: Target, copy: Target, tmp_path: Path
) -> None:
    rows = [user(number) for number in range(len(TIMES) + 1)]
    target.apply(rows)
    for number, time in enumerate(TIMES):
        _set(target, f"user{number}@example.com", time)
    held = target.users()
    file = tmp_path / "users.json"
    file.write_text(json.dumps(rows))
    variables = environment(
        DATABASE_URL=target.server.url(target.name), USERS_FILE=str(file), SESSION_SECRET=SECRET
    )

    ended = invoke(("export", "--json", "--output", str(tmp_path / "export.json")), variables)
    assert ended.code == 0, ended.error
    exported = json.loads((tmp_path / "export.json").read_text())
    by_email = {row["email"]: row for row in exported}
    for number, expected in enumerate(TIMES.values()):
        row = by_email[f"user{number}@example.com"]
        found = [row["createdAt"], row["updatedAt"]]
        assert [value and f"{value[:23]}Z" for value in found] == [expected] * 2
    assert by_email[f"user{len(TIMES)}@example.com"] == rows[-1]
    lines = [json.loads(line) for line in ended.output.splitlines()]
    named = {line["user_id"] for line in lines if line["event"] == "outcome"}
    assert named == {rows[n]["id"] for n, told in enumerate(TIMES.values()) if told is None}

    for arguments, code in [(("snapshot",), 0), (("status",), 0), (("plan",), 0), (("verify",), 5),
                            (("apply", "--yes", "--no-report"), 0)]:  # fmt: skip
        assert invoke(arguments, variables).code == code, arguments
    assert target.users() == held

    brought, _ = copy.apply(exported)
    assert brought.plan.users_sha256 == lines[-1]["users_sha256"]
    assert nonzero(copy.verify(exported)[0].counts) == {"identical": len(rows)}


def test_who_is_disabled_for_ever_is_so_after_an_export_and_an_import(
    target: Target, copy: Target, tmp_path: Path
) -> None:
    target.apply([user(number) for number in range(len(TIMES))])
    for number, time in enumerate(TIMES):
        target.run(
            f"UPDATE users SET disabled_at = '{time}', email_verified_at = '{time}'"
            f" WHERE email = 'user{number}@example.com'"
        )
    variables = environment(DATABASE_URL=target.server.url(target.name), SESSION_SECRET=SECRET)
    file = tmp_path / "export.json"
    ended = invoke(("export", "--json", "--output", str(file)), variables)
    assert ended.code == 0, ended.error
    exported = json.loads(file.read_text())
    assert {type(row[name]) for row in exported for name in ("disabledAt", "emailVerifiedAt")} == {
        str
    }
    brought, _ = copy.apply(exported)
    assert brought.plan.users_sha256 == json.loads(ended.output.splitlines()[-1])["users_sha256"]
    assert nonzero(copy.verify(exported)[0].counts) == {"identical": len(TIMES)}
    assert copy.run("SELECT count(*) FROM users WHERE disabled_at IS NULL") == [[0]]


def test_a_rollback_restores_such_times(target: Target) -> None:
    rows = [user(number) for number in range(len(TIMES))]
    target.apply(rows)
    for number, time in enumerate(TIMES):
        _set(target, f"user{number}@example.com", time)
    target.run(f"UPDATE import_records r SET digest = {DIGEST} FROM {HELD} WHERE u.id = r.user_id")
    held = target.users()
    applied, _ = target.apply([row | {"name": "Ada"} for row in rows])
    assert nonzero(applied.plan.counts) == {"changed": len(rows)}
    done, _ = finish(rollback.roll_back(target.database, str(applied.batch), run_by="test"))
    assert nonzero(done.counts) == {"restored": len(rows)}
    assert target.users() == held


def test_such_a_time_of_an_import_a_migration_or_a_logout_hinders_no_command(
    target: Target, tmp_path: Path
) -> None:
    applied, _ = target.apply([user(1)])
    path = tmp_path / "users.json"
    variables = environment(DATABASE_URL=target.server.url(target.name), USERS_FILE=str(path))
    for time in (time for time, told in TIMES.items() if told is None):
        target.run(
            f"UPDATE import_batches SET applied_at = '{time}', rolled_back_at = '{time}',"
            f" rolled_back_by = 'test'; UPDATE schema_migrations SET applied_at = '{time}';"
            f"DELETE FROM revoked_sessions; INSERT INTO revoked_sessions SELECT 'sid', '{time}', id"
            " FROM users"
        )
        listed = invoke(("status",), variables)
        assert listed.code == 0
        assert f"rolled back by test at {time.split()[0]}" in listed.output
        assert invoke(("schema", "status"), variables).code == 0
        refused = invoke(("rollback", str(applied.batch), "--yes"), variables)
        assert refused.code == 1
        assert "was rolled back at" in refused.error
        assert invoke(("export", "--output", str(path)), variables).code == 0
        (row,) = json.loads(path.read_text())
        path.unlink()
        has_ended = time.startswith("-") or time.endswith("BC")
        assert row.get("revokedSessions") == (None if has_ended else {"sid": 253_402_300_799})
        assert nonzero(target.verify([row])[0].counts) == {"identical": 1}
