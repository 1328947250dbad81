"""The schema by hand: what the commands show, and what is left when one is cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from shared.database import migrations
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreUnreachable
from shared.store.postgres.preparation import bring_up_to_date
from tests.support import commands
from tests.support.emulator import ROOT, environment
from tests.support.foreign_objects import trigger
from tests.support.postgres import PASSWORD, Server
from tests.support.waiting import until

# The command on a folder of migrations of the test's own.
_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background jobs ignore it.
from pathlib import Path
from typing import Any
from shared.database import migrations
load, folder = migrations.load, Path(sys.argv.pop(1))
migrations.load = lambda: load(folder)
from shared.transfer.actions import transfer
transfer(["schema", *sys.argv[1:]])
"""


@pytest.fixture
def empty(make_database: Callable[..., str]) -> str:
    """The name of a database without tables."""
    return make_database(migrated=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may edit."""
    return Path(shutil.copytree(ROOT / "migrations", tmp_path / "migrations"))


def _start(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, str(folder), *arguments],
        cwd=ROOT,
        env=environment(DATABASE_URL=url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return _checked(process.returncode, output, errors)


def _run(url: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    load = migrations.load
    with patch.object(migrations, "load", lambda: load(folder)):
        ended = commands.invoke(("schema", *arguments), environment(DATABASE_URL=url))
    return _checked(ended.code, ended.output, ended.error)


def _checked(code: int, output: str, errors: str) -> tuple[int, str, str]:
    assert "Traceback" not in errors
    assert PASSWORD not in output + errors
    return code, output, errors


def _psql(server: Server, name: str, sql: str) -> subprocess.CompletedProcess[str]:
    """Give a script to psql as one pastes it: on its standard input."""
    return subprocess.run(
        [str(server.programs / "psql"), "--no-psqlrc", server.url(name)],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )


def _states(server: Server, name: str, folder: Path) -> tuple[int, list[str]]:
    code, output, _ = _run(server.url(name), folder, "status", "--json")
    found = _result(output)["migrations"]
    for item in found:
        assert (item["applied_at"] is None) == (item["state"] == "pending")
    return code, [item["state"] for item in found]


def _result(output: str) -> dict[str, Any]:
    """Read the last of the JSON lines."""
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def test_status_tells_what_was_applied_is_pending_edited_or_unknown(
    postgres: Server, empty: str, folder: Path
) -> None:
    url = postgres.url(empty)
    for file in sorted(folder.glob("*.sql"))[2:]:
        file.unlink()
    second = folder / "0002_email_key_and_epoch.sql"
    later = folder / "9001_later.sql"
    assert _states(postgres, empty, folder) == (0, ["pending", "pending"])
    assert _run(url, folder, "apply")[0] == 0
    later.write_text("CREATE TABLE later (id integer)")
    assert _states(postgres, empty, folder) == (0, ["applied", "applied", "pending"])
    code, output, _ = _run(url, folder, "apply", "--json")
    assert (code, _result(output)["applied"]) == (0, ["9001_later.sql"])
    assert _states(postgres, empty, folder) == (0, ["applied", "applied", "applied"])
    later.unlink()
    assert _states(postgres, empty, folder) == (0, ["applied", "applied", "unknown"])
    second.write_text(second.read_text() + "-- a harmless comment\n")
    assert _states(postgres, empty, folder) == (5, ["applied", "edited", "unknown"])
    code, table, _ = _run(url, folder, "status")
    assert code == 5
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        ["0001_users.sql", "applied"],
        ["0002_email_key_and_epoch.sql", "edited"],
        ["9001_later.sql", "unknown"],
    ]
    assert all(re.fullmatch(r"20\d\d-\S+T\S+Z", row[2]) for row in rows)
    for action in ("plan", "apply"):
        code, output, errors = _run(url, folder, action)
        assert (code, output) == (1, "")
        assert "0002_email_key_and_epoch.sql was edited after it had been applied" in errors


def test_a_server_that_takes_no_writes_is_told_with_the_remedy_though_nothing_is_pending(
    postgres: Server, empty: str, folder: Path
) -> None:
    assert _run(postgres.url(empty), folder, "apply")[0] == 0
    with postgres.read_only(empty):
        code, _, error = _run(postgres.url(empty), folder, "apply")
    assert code == 1
    assert "takes no writes: default_transaction_read_only is on. ALTER DATABASE" in error


def test_status_names_what_others_have_on_the_tables(
    postgres: Server, empty: str, folder: Path
) -> None:
    assert _run(postgres.url(empty), folder, "apply")[0] == 0
    postgres.run(trigger("RETURN NULL;", "AFTER INSERT"), empty)
    code, shown, _ = _run(postgres.url(empty), folder, "status")
    assert code == 0
    assert "Note: users has a trigger of another's, guard (AFTER INSERT)." in shown
    (remark,) = _result(_run(postgres.url(empty), folder, "status", "--json")[1])["remarks"]
    assert remark["object"] == "trigger guard on users"


def test_the_plan_pasted_into_psql_does_what_apply_does(
    postgres: Server, make_database: Callable[..., str], folder: Path
) -> None:
    (folder / "9001_odd.sql").write_text(
        "CREATE TABLE odd (id integer DEFAULT 1 CHECK (id::text <> ':id'));\n"
        "INSERT INTO odd VALUES (2); -- and\nINSERT INTO odd VALUES (3)"
    )
    dumps = []
    for by_hand in (True, False):
        name = make_database(migrated=False)
        if by_hand:
            code, sql, _ = _run(postgres.url(name), folder, "plan")
            assert code == 0
            psql = _psql(postgres, name, sql)
            assert psql.returncode == 0, psql.stderr
        else:
            assert _run(postgres.url(name), folder, "apply")[0] == 0
        dumps.append(re.sub(r"\t20\d\d-\S+ \S+$", "", postgres.dump(name), flags=re.MULTILINE))
        states = set(_states(postgres, name, folder)[1])
        assert states == {"applied"}
    assert "9001_odd.sql\t" in dumps[0]
    assert dumps[0] == dumps[1]
    assert _run(postgres.url(name), folder, "plan")[1] == "-- Nothing is pending.\n"


def test_a_plan_that_fails_in_psql_leaves_nothing_of_the_file_and_of_those_behind_it(
    postgres: Server, database: str, folder: Path
) -> None:
    (folder / "9001_broken.sql").write_text("CREATE TABLE half (id integer); SELECT 1/0;")
    (folder / "9002_later.sql").write_text("CREATE TABLE later (id integer);")
    before = postgres.dump(database)
    _, sql, _ = _run(postgres.url(database), folder, "plan")
    assert _psql(postgres, database, sql).returncode == 3
    assert postgres.dump(database) == before


def test_a_plan_that_another_has_applied_meanwhile_is_not_applied_again(
    postgres: Server, database: str, folder: Path
) -> None:
    (folder / "9001_insert.sql").write_text("UPDATE users SET epoch = epoch + 1;")
    _, sql, _ = _run(postgres.url(database), folder, "plan")
    postgres.run("INSERT INTO users (email) VALUES ('ada@example.com')", database)
    assert _psql(postgres, database, sql).returncode == 0
    assert _psql(postgres, database, sql).returncode == 3
    assert postgres.run("SELECT epoch FROM users", database) == [[1]]


@pytest.mark.parametrize("migrated", [True, False])
def test_status_and_plan_change_nothing(
    postgres: Server, make_database: Callable[..., str], folder: Path, migrated: bool
) -> None:
    (folder / "9001_later.sql").write_text("CREATE TABLE later (id integer);")
    name = make_database(migrated=migrated)
    before = postgres.dump(name)
    assert _run(postgres.url(name), folder, "status")[0] == 0
    code, output, _ = _run(postgres.url(name), folder, "plan", "--json")
    assert code == 0
    assert "CREATE TABLE later" in _result(output)["sql"]
    assert postgres.dump(name) == before


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE TABLE broken (\n  id integer,,\n);", r"line 5: 42601: "),
        ("CREATE TABLE broken (id nonsense);", r"line 4: 42704: "),
        ("SELECT 1,\n  nonsense;", r"line 5: 42703 "),
        ("SELECT 1 / (SELECT count(*) FROM half);", r"line 4: 22012: "),
        ("DO $$\nBEGIN\n  PERFORM 1 / 0;\nEND\n$$;", r"line 4: 22012: "),
        ("DO $$\nBEGIN\n  RAISE 'no';\nEND\n$$;", r"line 4: P0001: no"),
        (
            "DO $$\nBEGIN\n  RAISE 'no' USING ERRCODE = '42501', DETAIL = 'canary';\nEND\n$$;",
            r"line 4: 42501",
        ),
        (
            "CREATE VIEW halves AS SELECT id FROM half;\nALTER TABLE half ALTER id TYPE text;",
            r"line 5: 0A000: .* \(rule _RETURN on view halves depends on column \"id\"\)",
        ),
        ("INSERT INTO one VALUES ('canary');", r"line 4: 23505: "),
        ("SELECT 'canary'::integer;", r"line 4: 22P02: "),
        ("INSERT INTO deferred VALUES (1), (1);", r"line 4: 23505: "),
        ("COMMIT;", r"line 4: COMMIT has no place in a file"),
        ("rollback; BEGIN;", r"line 4: rollback has no place in a file"),
        ("COPY half FROM STDIN;", r"sql: InterfaceError: .*"),
        ("CREATE INDEX CONCURRENTLY ON half (id);", r"line 4: 25001: "),
    ],
)
def test_a_failing_file_names_itself_and_the_line_and_leaves_nothing(
    postgres: Server, database: str, folder: Path, statement: str, reason: str
) -> None:
    postgres.run("CREATE TABLE one (id text PRIMARY KEY); GRANT ALL ON one TO app", database)
    postgres.run("INSERT INTO one VALUES ('canary')", database)
    postgres.run(
        "CREATE TABLE deferred (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "GRANT ALL ON deferred TO app",
        database,
    )
    before = postgres.dump(database)
    (folder / "9001_broken.sql").write_text(
        f"CREATE TABLE half (id integer);\n-- a; comment\n\n{statement}\nSELECT 'never';\n"
    )
    code, output, errors = _run(postgres.url(database), folder, "apply")
    assert (code, output) == (1, "")
    assert re.search(r"migrations/9001_broken\.sql, |migrations/9001_broken\.sql: ", errors)
    assert re.search(reason, errors), errors
    assert "canary" not in errors
    assert postgres.dump(database) == before


def test_a_migration_gives_way_to_those_who_use_the_table(
    postgres: Server, database: str, folder: Path
) -> None:
    (folder / "9001_locking.sql").write_text(
        "CREATE TABLE half (id integer);\nALTER TABLE users ADD COLUMN later integer;"
    )
    before = postgres.dump(database)
    with postgres.connect(database) as user:
        user.run("BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE")
        code, _, errors = _run(postgres.url(database), folder, "apply")
    assert code == 1
    assert "9001_locking.sql, line 2: 55P03 " in errors
    assert postgres.dump(database) == before


def test_a_migration_that_takes_too_long_is_ended_by_the_server(
    postgres: Server, database: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "9001_slow.sql").write_text("CREATE TABLE half (id integer);\nSELECT pg_sleep(60);")
    before = postgres.dump(database)
    load = migrations.load
    monkeypatch.setattr(migrations, "load", lambda: load(folder))
    url = DatabaseUrl.parse(postgres.url(database))
    with pytest.raises(StoreUnreachable, match=r"9001_slow.sql, line 2: 57014 "):
        bring_up_to_date(url, DatabaseSettings(timeout=3))
    assert postgres.dump(database) == before


def test_of_two_at_once_one_applies_and_the_other_finds_it_done(
    postgres: Server, empty: str, folder: Path
) -> None:
    (folder / "9001_slow.sql").write_text("SELECT pg_sleep(1); CREATE TABLE later (id integer);")
    # Then a transaction sees nothing that was committed after its first statement.
    postgres.run(f"ALTER DATABASE {empty} SET default_transaction_isolation = 'repeatable read'")
    url = postgres.url(empty)
    results = [_finish(process) for process in [_start(url, folder, "apply") for _ in range(2)]]
    assert [code for code, *_ in results] == [0, 0]
    lines = sorted(line for _, output, _ in results for line in output.splitlines())
    applied = [f"Applied {path.name}." for path in sorted(folder.glob("*.sql"))]
    assert lines == [*applied, *["The database is up to date."] * 2]


_OF_APP = "SELECT wait_event FROM pg_stat_activity WHERE datname = '{}' AND usename = 'app'"


def _wait_for_sleep(server: Server, name: str, count: int) -> None:
    until(lambda: server.run(_OF_APP.format(name)).count(["PgSleep"]) == count)


def _wait_for_session(server: Server, name: str, process: subprocess.Popen[str]) -> None:
    until(lambda: process.poll() is not None or server.run(_OF_APP.format(name)))


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT", "server"])
def test_what_is_cut_off_in_the_middle_leaves_nothing_and_holds_nobody_up(
    postgres: Server, database: str, folder: Path, how: str
) -> None:
    file = folder / "9001_slow.sql"
    file.write_text("CREATE TABLE half (id integer); SELECT pg_sleep(600);")
    before = postgres.dump(database)
    process = _start(postgres.url(database), folder, "apply")
    _wait_for_sleep(postgres, database, 1)
    if how == "server":
        postgres.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND usename = 'app'"
        )
        code, _, errors = _finish(process)
        assert code == 1
        assert "Database error: migrations/9001_slow.sql: " in errors
    else:
        os.kill(process.pid, signal.Signals[how])
        code, output, errors = _finish(process)
        assert (code, output) == (-9 if how == "SIGKILL" else 130, "")
        assert errors == ("" if how == "SIGKILL" else "Interrupted. Nothing was changed.\n")
    _wait_for_sleep(postgres, database, 0)
    assert postgres.dump(database) == before
    file.write_text("CREATE TABLE half (id integer);")
    assert _run(postgres.url(database), folder, "apply")[0] == 0
    assert _states(postgres, database, folder)[1][-1] == "applied"


def test_killed_at_any_point_all_files_are_there_with_their_records_or_none(
    postgres: Server, database: str, folder: Path
) -> None:
    numbers = [*range(9001, 9021)]
    for number in numbers:
        (folder / f"{number}_step.sql").write_text(
            f"CREATE TABLE a{number} (); SELECT pg_sleep(0.02); CREATE TABLE b{number} ();"
        )
    query = (
        "SELECT array(SELECT version FROM schema_migrations WHERE version > 9000 ORDER BY 1), "
        "array(SELECT substr(relname, 2)::int FROM pg_class WHERE relname ~ '^a9' ORDER BY 1), "
        "array(SELECT substr(relname, 2)::int FROM pg_class WHERE relname ~ '^b9' ORDER BY 1)"
    )
    for attempt in range(3):
        process = _start(postgres.url(database), folder, "apply")
        _wait_for_session(postgres, database, process)
        time.sleep(0.1 * attempt)
        process.kill()
        process.communicate()
        until(lambda: not postgres.run(_OF_APP.format(database)))
        ((recorded, first, second),) = postgres.run(query, database)
        assert recorded == first == second
        assert recorded in ([], numbers)
    assert _run(postgres.url(database), folder, "apply")[0] == 0
    assert postgres.run(query, database) == [[numbers] * 3]


def test_a_pooler_is_bypassed(postgres: Server, empty: str, folder: Path) -> None:
    url = postgres.url(empty, host="localhost-pooler")  # A host that there isn't.
    for action in ("status", "plan", "apply"):
        assert _run(url, folder, action)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "url", "code", "sentence"),
    [
        (["status"], "", 2, "DATABASE_URL is missing"),
        (["apply"], "postgresql://app:canary@localhost/db?sslmode=disable", 2, "sslmode=disable"),
        (["apply", "--force"], "", 2, "No such option"),
        (["plan"], "postgresql://app:canary@localhost:1/db", 1, "cannot connect"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(
    folder: Path, arguments: list[str], url: str, code: int, sentence: str
) -> None:
    result = _run(url, folder, *arguments)
    assert result[:2] == (code, "")
    assert sentence in result[2]
    assert "canary" not in result[2]
