"""Of an error of the server's: its objects and its own text, never what a function says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreFault, StoreRefused
from tests.support.postgres import Server

_FUNCTION = """
CREATE OR REPLACE FUNCTION guard(value text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN {} RETURN 1; END $$
"""
CANARY = "ada@example.com"


@pytest.fixture(scope="module")
def pool(postgres: Server, make_database: object) -> Iterator[Database]:
    """A pool on a database with a table of somebody else's."""
    assert callable(make_database)
    name = make_database()
    postgres.run(
        "CREATE TABLE pets (id int PRIMARY KEY, name varchar(3) NOT NULL CHECK (name <> 'x'));"
        "INSERT INTO pets VALUES (1, 'Rex'); ALTER TABLE pets OWNER TO app;"
        "GRANT CREATE ON SCHEMA public TO app",
        name,
    )
    with closing(Database(DatabaseUrl.parse(postgres.url(name)), DatabaseSettings())) as opened:
        yield opened


@pytest.mark.parametrize(
    ("statement", "objects", "text"),
    [
        ("INSERT INTO pets VALUES (1, 'Tom')", {"constraint": "pets_pkey", "table": "pets"}, ""),
        ("INSERT INTO pets VALUES (2, NULL)", {"column": "name", "schema": "public"}, ""),
        ("INSERT INTO pets VALUES (3, 'x')", {"constraint": "pets_name_check"}, ""),
        ("INSERT INTO pets VALUES (4, 'Long')", {}, "value too long for type"),
        (f"SELECT '{CANARY}'::int", {}, "message withheld"),
    ],
)
def test_constraints_tables_and_columns_are_named(
    pool: Database, statement: str, objects: dict[str, str], text: str
) -> None:
    with pytest.raises(StoreFault) as raised:
        pool.execute(statement)
    assert objects.items() <= raised.value.objects.items()
    assert all(name in str(raised.value) for name in objects.values())
    assert text in str(raised.value)
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    ("deed", "sqlstate"),
    [
        ("RAISE '% is not welcome', value;", "P0001"),
        ("ASSERT false, value;", "P0004"),
        ("EXECUTE 'SELECT ' || quote_ident(value);", "42703"),
        ("EXECUTE value;", "42601"),
        ("PERFORM value::int;", "22P02"),
    ],
)
def test_of_what_fails_in_a_function_only_its_name_is_told(
    pool: Database, deed: str, sqlstate: str
) -> None:
    pool.execute(_FUNCTION.format(deed))
    with pytest.raises((StoreFault, StoreRefused), match=sqlstate) as raised:
        pool.execute("SELECT guard(:value)", value=CANARY)
    assert "guard(text)" in str(raised.value)
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("sqlstate", ["08006", "57P01", "57014", "40001", "53300", "XX000"])
def test_a_function_that_borrows_a_code_of_the_servers_is_no_outage(
    pool: Database, sqlstate: str
) -> None:
    pool.execute(_FUNCTION.format(f"RAISE '{CANARY}' USING ERRCODE = '{sqlstate}';"))
    with pytest.raises(StoreFault, match=sqlstate) as raised:
        pool.execute("SELECT guard('')")
    assert CANARY not in str(raised.value)
    assert not pool.breaker.is_open


def test_what_a_migration_raises_itself_is_told(pool: Database) -> None:
    with pytest.raises(StoreFault, match="run make migrate-schema"):
        pool.execute("DO $$ BEGIN RAISE 'run make migrate-schema'; END $$")
    pool.execute(_FUNCTION.format(f"RAISE '{CANARY}';"))
    with pytest.raises(StoreFault, match="withheld") as raised:
        pool.execute("DO $$ BEGIN PERFORM guard(''); END $$")
    assert CANARY not in str(raised.value)


def test_a_right_that_a_trigger_s_function_lacks_is_told_with_its_object(
    pool: Database, postgres: Server
) -> None:
    """PostgreSQL says it itself, of what is there; without it nobody would know what to grant."""
    postgres.run("CREATE TABLE IF NOT EXISTS secrets (id int)", pool.url.database)
    postgres.run(_FUNCTION.format("INSERT INTO secrets VALUES (1);"), pool.url.database)
    with pytest.raises(StoreRefused, match="42501 permission denied for table secrets") as raised:
        pool.execute("SELECT guard(:value)", value=CANARY)
    assert raised.value.facts["routine"] == "guard(text)"
    raising = f"RAISE insufficient_privilege USING MESSAGE = '{CANARY}';"
    postgres.run(_FUNCTION.format(raising), pool.url.database)
    with pytest.raises(StoreFault, match="42501: message withheld"):
        pool.execute("SELECT guard(:value)", value=CANARY)
