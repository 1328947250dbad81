"""Statements are parsed and planned once a connection, and nobody sees where that fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from uuid import UUID

import pytest

from shared.database import pool as pools
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement
from shared.database.url import DatabaseUrl
from shared.errors import StoreFault
from tests.support.emulator import running_emulator
from tests.support.interceptor import Interceptor, Message
from tests.support.postgres import Server, running_pgbouncer

ECHO = Statement("echo", "SELECT :text || current_setting('plan_cache_mode')")
NAMES = Statement("names", "SELECT name FROM users WHERE name = :name")
PREPARED = "SELECT name, generic_plans, custom_plans FROM pg_prepared_statements WHERE name LIKE :n"


@contextmanager
def _counting(postgres: Server) -> Iterator[tuple[Interceptor, Counter[str]]]:
    """Stand before the server, and count the messages of each kind that clients send."""
    sent: Counter[str] = Counter()

    def count(message: Message) -> None:
        if message.sender == "client":
            sent[message.kind] += 1

    with Interceptor(postgres) as interceptor:
        interceptor.watch = count
        yield interceptor, sent


@pytest.fixture
def watched(postgres: Server, database: str) -> Iterator[tuple[Database, Counter[str]]]:
    """A pool of one connection, and how many messages of each kind it has sent."""
    with _counting(postgres) as (interceptor, sent):
        url = DatabaseUrl.parse(interceptor.url(database))
        with closing(Database(url, DatabaseSettings(max_connections=1))) as opened:
            yield opened, sent


def test_a_statement_is_parsed_with_its_first_use_on_a_connection_and_then_no_more(
    watched: tuple[Database, Counter[str]],
) -> None:
    opened, sent = watched
    opened.execute("SELECT 1")  # The first statement on a connection brings another along.
    sent.clear()
    for turn in range(3):
        assert opened.execute(ECHO, text=f"{turn} ") == [[f"{turn} force_generic_plan"]]
        assert sent == Counter(P=0 if turn else 2, B=2, D=1, E=2, S=1)
        sent.clear()


def test_a_warm_login_and_a_warm_sign_up_send_no_parse(postgres: Server, database: str) -> None:
    with _counting(postgres) as (interceptor, sent):
        url = interceptor.url(database)
        with running_emulator(DATABASE_URL=url, DATABASE_MAX_CONNECTIONS="1") as emulator:
            with emulator.client() as client:
                for turn in range(3):
                    person = {"email": f"ada{turn}@example.com", "password": "correct horse"}
                    sent.clear()
                    assert client.post("/api/signup", json=person).status_code == 201
                    signing_up = Counter(sent)
                    sent.clear()
                    assert client.post("/api/login", json=person).status_code == 200
            assert (signing_up["P"], signing_up["S"]) == (0, 2)
            assert (sent["P"], sent["S"]) == (0, 2)


def test_plans_are_made_for_any_values(postgres: Server, database: str) -> None:
    url = DatabaseUrl.parse(postgres.url(database))
    with closing(Database(url, DatabaseSettings(max_connections=1))) as opened:
        for _ in range(3):
            opened.execute(NAMES, name="Ada")
        counts = opened.execute(PREPARED, n="aicoder%")
        assert len(counts) == 2  # And that of the settings which go ahead of it.
        name, generic, custom = next(row for row in counts if row[0].encode() == NAMES.key)
        assert (generic, custom) == (3, 0), name


def test_a_name_that_the_server_has_forgotten_is_repeated_without_it_and_not_used_again(
    watched: tuple[Database, Counter[str]],
) -> None:
    opened, sent = watched
    opened.execute(ECHO, text="")
    opened.execute("DEALLOCATE ALL")
    assert opened.execute(ECHO, text="again ") == [["again auto"]]
    sent.clear()
    assert opened.execute(ECHO, text="") == [["auto"]]
    assert sent["P"] == 2


def test_a_name_that_the_server_has_heard_of_is_repeated_without_it(
    watched: tuple[Database, Counter[str]],
) -> None:
    opened, _ = watched
    opened.execute("SELECT 1")
    opened.execute(f"PREPARE {ECHO.key.decode()} AS SELECT 'of somebody else'")
    assert opened.execute(ECHO, text="ours ") == [["ours auto"]]


@pytest.mark.parametrize(("pause", "parsed"), [(60, [2, 2]), (0, [1, 0])])
def test_a_statement_whose_columns_a_migration_has_changed_is_planned_anew(
    watched: tuple[Database, Counter[str]],
    postgres: Server,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    pause: int,
    parsed: list[int],
) -> None:
    monkeypatch.setattr(pools, "REPLAN_PAUSE", pause)
    opened, sent = watched
    assert opened.execute(NAMES, name="x") == []
    postgres.run("ALTER TABLE users ALTER COLUMN name TYPE varchar(300)", database)
    assert opened.execute(NAMES, name="x") == []
    opened.execute(ECHO, text="")  # It has its name still.
    for number in parsed:
        sent.clear()
        assert opened.execute(NAMES, name="x") == []
        assert sent["P"] == number


RENAME = Statement("rename", "UPDATE users SET name = :name RETURNING name")


@pytest.mark.parametrize(
    ("between", "value"),
    [
        ("integer USING 1", "1"),
        ("date USING now()", "2001-02-03"),
        ("uuid USING gen_random_uuid()", str(UUID(int=1))),
        ("shouted", "ADA"),
    ],
)
def test_a_statement_that_was_parsed_while_a_column_had_another_type_is_parsed_anew(
    watched: tuple[Database, Counter[str]],
    postgres: Server,
    database: str,
    between: str,
    value: str,
) -> None:
    opened, _ = watched
    postgres.run("INSERT INTO users (email) VALUES ('ada@example.com')", database)
    postgres.run("CREATE DOMAIN shouted AS text CHECK (VALUE = upper(VALUE))", database)
    postgres.run(f"ALTER TABLE users ALTER COLUMN name TYPE {between}", database)
    opened.execute(RENAME, name=value)
    postgres.run("ALTER TABLE users ALTER COLUMN name TYPE text; DROP DOMAIN shouted", database)
    assert opened.execute(RENAME, name="Ada") == [["Ada"]]
    assert opened.execute(RENAME, name="Bob") == [["Bob"]]


def test_a_connection_is_closed_where_a_statement_with_a_name_could_not_be_parsed(
    watched: tuple[Database, Counter[str]],
) -> None:
    opened, _ = watched
    ((pid,),) = opened.execute("SELECT pg_backend_pid()")
    with pytest.raises(StoreFault):
        opened.execute(Statement("broken", "SELECT nothing_of_the_sort(:value)"), value=1)
    assert opened.execute("SELECT pg_backend_pid()") != [[pid]]


def test_a_wrong_value_costs_a_statement_neither_its_connection_nor_its_name(
    watched: tuple[Database, Counter[str]],
) -> None:
    opened, sent = watched
    divided = Statement("divided", "SELECT 1 / :by::int")
    opened.execute(divided, by=1)
    with pytest.raises(StoreFault):
        opened.execute(divided, by=0)
    sent.clear()
    assert opened.execute(divided, by=1) == [[1]]
    assert sent["P"] == 0


@pytest.mark.parametrize("pooler", ["keeps none", "keeps them", "keeps two"])
def test_behind_poolers_everyone_gets_the_answer_to_their_own_statement_and_no_error(
    postgres: Server, database: str, pooler: str, request: pytest.FixtureRequest
) -> None:
    fetched = pooler != "keeps none"
    request.getfixturevalue("newer_pgbouncer" if fetched else "pgbouncer_program")
    kept = {"keeps none": 0, "keeps them": 100, "keeps two": 2}[pooler]
    statements = [Statement(f"s{n}", f"SELECT '{n} ' || :text") for n in range(8)]
    servers, everybody_begins = 2, threading.Barrier(4)

    def ask(opened: Database, client: int) -> None:
        everybody_begins.wait()
        for turn in range(40):
            number = (client + turn) % len(statements)
            text = f"{client} {turn}"
            assert opened.execute(statements[number], text=text) == [[f"{number} {text}"]]

    with (
        running_pgbouncer(
            postgres, server_connections=servers, fetched=fetched, max_prepared_statements=kept
        ) as running,
        ExitStack() as stack,
    ):
        url = DatabaseUrl.parse(postgres.url(database, port=running.port))
        opened = [stack.enter_context(closing(Database(url, DatabaseSettings()))) for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, opened, range(4)))
        named = sum(database._has_names for database in opened)
        # A server's connection takes each name from one client only: where the
        # pooler keeps none, no more clients than servers are never refused.
        assert (named == 4) if fetched else (named <= servers), running.log.read_text()
