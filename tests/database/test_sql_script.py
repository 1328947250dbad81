"""Finding the line that the server refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from shared.database import migrations, sql_script
from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from tests.support.postgres import Server

TRICKY = r"""
-- a comment; with a semicolon and an apostrophe: it's one
/* one; /* inside; */ another; */ ;;
SELECT 'a; ''b', E'c\';', E'd''\';', "e;".f, U&'\0061;' FROM (SELECT 1 AS f) AS "e;";
CREATE TABLE a$b$c (id integer); CREATE TABLE tricky (id integer);
DO $$ BEGIN PERFORM 'x;'; END $$;
DO $body$ BEGIN PERFORM $$ ; $$; END $body$;
CREATE FUNCTION two(n integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC
    SELECT 1; SELECT CASE WHEN n > 1 THEN 2 ELSE (CASE n WHEN 0 THEN 3 END) END;
END;
CREATE RULE twice AS ON DELETE TO tricky DO ALSO (SELECT 1; SELECT 2);
SELECT CASE WHEN true THEN 1 END
"""


def test_there_are_as_many_statements_as_the_server_counts(
    postgres: Server, make_database: Callable[..., str]
) -> None:
    url = DatabaseUrl.parse(postgres.url(make_database(migrated=False)))
    with Database(url, DatabaseSettings()).direct_connection(time.monotonic() + 30) as connection:
        for sql in (TRICKY, *(item.sql for item in migrations.load())):
            connection.run_script(sql)
            assert connection.completed == len(sql_script.starts(sql)), sql[:60]


def test_a_statement_starts_at_its_first_word() -> None:
    words = [TRICKY[start:].split()[0] for start in sql_script.starts(TRICKY)]
    assert words == ["SELECT", "CREATE", "CREATE", "DO", "DO", "CREATE", "CREATE", "SELECT"]


@pytest.mark.parametrize("sql", ["", " ", "-- only\n/* comments; */", ";;"])
def test_where_there_is_no_statement_none_is_named(sql: str) -> None:
    assert sql_script.starts(sql) == []
    assert sql_script.line_of_error(sql, 0, None) is None


def test_a_place_is_the_servers_or_the_statement_after_the_completed_ones() -> None:
    sql = "SELECT 1;\n\nINSERT INTO users\nVALUES ('x');\nDO $$ secret $$;"
    assert sql_script.line_of_error(sql, 1, None) == 3
    assert sql_script.line_of_error(sql, 1, sql.index("'x'") + 1) == 4
    assert sql_script.line_of_error(sql, 2, None) == 5
    assert sql_script.line_of_error(sql, 3, None) is None
