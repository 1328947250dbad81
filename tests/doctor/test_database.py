"""The database as the doctor finds it: one sentence a fault, and a remedy that mends it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.doctor import database as database_checks
from shared.doctor.database import NEEDED
from shared.doctor.subject import Finding
from tests.support.doctor import look, told
from tests.support.emulator import ROOT
from tests.support.foreign_objects import trigger
from tests.support.neon_proxy import HTML, Answer, Fault, NeonProxy, answering, raw
from tests.support.postgres import PASSWORD, Server, running_pgbouncer

DATABASE = ("database", "pooler", "schema", "role", "clock")
(GRANTS,) = re.findall(
    r"```sql\n(GRANT.*?)```", (ROOT / "docs" / "DATABASE_SETUP.md").read_text(), re.DOTALL
)
ROLE = '"my Role"'
_COMMAND = re.compile(r"`(GRANT [^`]+)`")


@pytest.fixture
def url(postgres: Server, database: str) -> str:
    return postgres.url(database)


@pytest.fixture
def requests_url(postgres: Server, database: str) -> Iterator[str]:
    """A role, of a name that SQL must quote, that has what docs/DATABASE_SETUP.md grants."""
    postgres.run(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'", database)
    postgres.run(GRANTS.replace("requests", ROLE), database)
    yield postgres.url(database, user="my%20Role")
    postgres.run(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}", database)


def test_a_database_that_is_as_it_should_be_has_no_problem_and_no_note(
    url: str, database: str
) -> None:
    found = look(*DATABASE, DATABASE_URL=url)
    assert [it.verdict for it in found] == ["ok"] * 4
    assert f"{database} on localhost answers: PostgreSQL" in found[0].sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"port": 1}, "does not answer: cannot connect"),
        ({"password": "wrong"}, "cannot be used: the server refused the connection: 28P01"),
        ({"database": "missing"}, "cannot be used: the server refused the connection: 3D000"),
        ({"host": "nowhere.invalid"}, "the host's name cannot be resolved"),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_problem_and_no_line_of_the_log(
    postgres: Server, change: dict[str, Any], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    found = look(*DATABASE, DATABASE_URL=postgres.url(**{"database": "postgres"} | change))
    (problem,) = told(found, "problem")
    assert sentence in problem
    assert len(found) == 1
    assert capfd.readouterr() == ("", "")


def test_a_table_of_somebody_elses_is_named_with_the_remedy(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    name = make_database(migrated=False)
    postgres.run("CREATE TABLE users (id serial, email text)", name)
    problems = told(look("schema", DATABASE_URL=postgres.url(name)), "problem")
    assert any("users is not the old server's table" in problem for problem in problems)


def test_a_collation_that_has_changed_under_the_indexes_is_a_problem(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    """As after an update of the C library: a login finds nobody, and a sign-up makes a twin."""
    name = f"{make_database()}_collated"
    # Before 17 that of Neon's databases, C.UTF-8, has no version.
    provider = "LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'" if postgres.version < 17 else ""
    postgres.run(
        f"CREATE DATABASE {name} OWNER app TEMPLATE template0"
        f" {provider if postgres.version >= 15 else ''}"
    )
    try:
        url = postgres.url(name)
        assert told(look("collation", DATABASE_URL=url), "problem") == []
        if postgres.version >= 15:
            postgres.run(f"UPDATE pg_database SET datcollversion = '0' WHERE datname = '{name}'")
        problems = told(look("collation", DATABASE_URL=url), "problem")
        if postgres.version >= 15:
            (problem,) = problems
            assert f"The collation of the database {name} was of version 0, and is of" in problem
            assert f"`REINDEX DATABASE {name}`" in problem
    finally:
        postgres.drop_database(name)


NEIGHBOURS = {
    trigger("RETURN NULL;", "AFTER INSERT OR UPDATE"): (
        "users has a trigger of another's, guard (AFTER INSERT OR UPDATE). See that it neither"
    ),
    trigger("RETURN OLD;", "BEFORE DELETE"): "guard (BEFORE DELETE). If it keeps the row, as a",
    trigger("RETURN OLD;", "BEFORE DELETE", "auth_events"): "what has expired is never deleted",
    trigger("RETURN NEW;", table="auth_events"): (
        "auth_events has a trigger of another's, guard (BEFORE INSERT). What it keeps out"
    ),
    "CREATE TABLE snippets (owner uuid REFERENCES users ON DELETE CASCADE)": (
        "The deletion of a user changes snippets (ON DELETE CASCADE)."
    ),
    "CREATE TABLE snippets (owner uuid REFERENCES users)": (
        "Users to whom rows of snippets (ON DELETE NO ACTION) refer cannot be deleted (409)."
    ),
}


@pytest.mark.parametrize("change", NEIGHBOURS)
def test_what_others_have_on_the_tables_is_a_note(
    postgres: Server, database: str, url: str, change: str
) -> None:
    postgres.run(change, database)
    found = look("neighbours", DATABASE_URL=url)
    (note,) = told(found, "note")
    assert NEIGHBOURS[change] in note
    assert len(found) == 1
    if table := re.search(r"ON (\w+) FOR EACH ROW", change):
        postgres.run(f"ALTER TABLE {table[1]} DISABLE TRIGGER guard", database)
        assert [it.verdict for it in look("neighbours", DATABASE_URL=url)] == ["ok"]


def test_migrations_that_wait_are_a_note_or_without_auto_migrate_a_problem(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    url = postgres.url(make_database(migrated=False))
    (note,) = told(look("schema", DATABASE_URL=url), "note")
    assert "not applied yet: 0001_users.sql, 0002" in note
    (problem,) = told(look("schema", DATABASE_URL=url, AUTO_MIGRATE="false"), "problem")
    assert "run `make migrate-schema`" in problem
    assert look("role", DATABASE_URL=url) == [], "of no table anything could be said"


def test_an_edited_migration_is_a_problem_and_one_of_newer_code_a_note(
    postgres: Server, database: str, url: str
) -> None:
    postgres.run(
        "UPDATE schema_migrations SET checksum = 'x' WHERE version = 2;"
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (99, '0099_x.sql', 'x')",
        database,
    )
    found = look("schema", DATABASE_URL=url)
    (problem,) = told(found, "problem")
    assert "Edited after they had been applied: 0002_" in problem
    (note,) = told(found, "note")
    assert "Applied by newer code: 0099_x.sql." in note


def test_the_rights_that_are_asked_for_are_those_that_the_document_grants(
    requests_url: str,
) -> None:
    assert [it.verdict for it in look("role", DATABASE_URL=requests_url)] == ["ok"]


def test_each_right_that_lacks_is_named_with_the_grant_that_gives_it(
    postgres: Server, database: str, requests_url: str
) -> None:
    postgres.run(
        f"REVOKE ALL ON {', '.join(NEEDED)} FROM {ROLE};"
        f"REVOKE ALL (previous) ON import_records FROM {ROLE}",
        database,
    )
    problems = told(look("role", DATABASE_URL=requests_url), "problem")
    assert len(problems) == len(NEEDED)
    assert f"The role {ROLE} lacks SELECT, UPDATE (previous) on import_records." in str(problems)
    postgres.run(";".join(_COMMAND.findall(" ".join(problems))), database)
    assert [it.verdict for it in look("role", DATABASE_URL=requests_url)] == ["ok"]


def test_a_role_without_temporary_tables_is_told_with_the_grant_that_gives_them(
    postgres: Server, database: str, requests_url: str
) -> None:
    postgres.run(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    (note,) = told(look("role", DATABASE_URL=requests_url), "note")
    assert "an import and a rollback need" in note
    postgres.run(";".join(_COMMAND.findall(note)))
    assert told(look("role", DATABASE_URL=requests_url), "note") == []


def test_a_role_that_may_do_everything_is_a_note(
    postgres: Server, database: str, requests_url: str
) -> None:
    postgres.run(f"ALTER ROLE {ROLE} SUPERUSER", database)
    (note,) = told(look("role", DATABASE_URL=requests_url), "note")
    assert "a role of its own" in note


def test_a_database_that_takes_no_writes_is_a_problem(
    postgres: Server, database: str, url: str
) -> None:
    with postgres.read_only(database):
        (problem,) = told(look("database", DATABASE_URL=url), "problem")
    assert "its transactions begin read-only" in problem
    assert "default_transaction_read_only" in problem


@pytest.mark.parametrize(
    ("wrong_by", "sentence"),
    [(960, "960 seconds ahead of the"), (-86_400, "86,400 seconds behind the"), (3, None)],
)
def test_a_clock_that_differs_from_the_databases_is_a_problem(
    url: str, wrong_by: float, sentence: str | None
) -> None:
    problems = told(
        look("clock", DATABASE_URL=url, clock=lambda: time.time() + wrong_by), "problem"
    )
    assert len(problems) == (sentence is not None)
    assert (sentence or "") in str(problems)


@pytest.mark.usefixtures("pgbouncer_program")
def test_the_poolers_answer_counts_where_it_differs_from_the_servers(
    postgres: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler keeps connections that were opened under the old search path."""
    with running_pgbouncer(postgres, server_connections=1) as pooler:
        resolve = socket.getaddrinfo

        def look_up(host: str, port: int, *rest: Any, **options: Any) -> Any:
            if host == "localhost-pooler":
                return resolve("localhost", pooler.port, *rest, **options)
            return resolve(host, port, *rest, **options)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        url = postgres.url(database, host="localhost-pooler")
        assert [it.verdict for it in look(*DATABASE, DATABASE_URL=url)] == ["ok"] * 5
        postgres.run(f"CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO app;"
                     f"ALTER DATABASE {database} SET search_path = auth", database)  # fmt: skip
        (problem,) = told(look("pooler", DATABASE_URL=url), "problem")
    assert "Through the pooler the schema is public, without it auth" in problem


def _look_by_http(url: str, neon: NeonProxy, *names: str) -> list[Finding]:
    return look(
        *names, "transport", DATABASE_URL=url, DATABASE_TRANSPORT="http", DATABASE_HTTP_URL=neon.url
    )


def test_requests_by_http_that_reach_the_same_place_are_all_right(
    neon: NeonProxy, url: str
) -> None:
    (found,) = _look_by_http(url, neon)
    assert found.verdict == "ok"
    assert found.sentence.startswith(neon.url)
    assert look("transport", DATABASE_URL=url, DATABASE_HTTP_URL=neon.url) == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (HTML, "does not answer: HTTP 502"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "does not answer: the answer could not be read"),
        (answering(Answer(200, {}, b"<html>")), "does not speak SQL over HTTP. Is DATABASE_HTTP_"),
    ],
)
def test_who_does_not_answer_by_http_is_one_problem_and_no_line_of_the_log(
    neon: NeonProxy, url: str, fault: Fault, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    neon.fault = fault
    (problem,) = told(_look_by_http(url, neon, "database"), "problem")
    assert sentence in problem
    assert f"By HTTP, at {neon.url}," in problem
    assert capfd.readouterr() == ("", "")


def test_another_schema_by_http_is_a_problem_with_the_remedy(
    postgres: Server, database: str, neon: NeonProxy, url: str
) -> None:
    """The proxy drops the options that a connection over TCP has."""
    postgres.run("CREATE SCHEMA auth; GRANT ALL ON SCHEMA auth TO app", database)
    (problem,) = told(_look_by_http(f"{url}&options=-csearch_path=auth", neon), "problem")
    assert "search_path=auth has no effect" in problem


def test_a_line_on_which_each_answer_takes_long_is_a_note(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_checks, "SLOW_SECONDS", 0.0)
    (note,) = told(look("database", DATABASE_URL=url), "note")
    assert re.search(r"A round trip to localhost takes \d+ ms\.", note)


def test_neons_direct_host_is_a_note_that_names_the_pooled_one(postgres: Server) -> None:
    found = look("pooler", DATABASE_URL=postgres.url("x", host="ep-x.eu.aws.neon.tech"))
    (note,) = told(found, "note")
    assert "-pooler" in note
