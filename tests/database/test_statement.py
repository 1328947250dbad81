"""Statements that name themselves and their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.statement import Statement, Value
from shared.database.url import DatabaseUrl
from tests.support.postgres import Server


@pytest.fixture
def pool(postgres: Server, database: str) -> Iterator[Database]:
    with closing(Database(DatabaseUrl.parse(postgres.url(database)), DatabaseSettings())) as opened:
        yield opened


def test_parameters_are_numbered_as_they_first_appear_and_nothing_else_is_one() -> None:
    sql = """SELECT ':no', 'it''s :no', E'\\n:no', "a:no", '00:00'::time, :b::int -- isn't :no
        , :a, :b, array[1, 2][1:2], '{":no": 1}'::json->>':no' WHERE x::text = :long_name1"""
    statement = Statement("example", sql)
    assert statement.parameters == ("b", "a", "long_name1")
    assert statement.text == sql.replace(":b", "$1").replace(":a,", "$2,").replace(
        ":long_name1", "$3"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"a": 1}, "example lacks its parameter b"),
        ({"a": 1, "b": 2, "c": 3}, "example has no parameter c"),
    ],
)
def test_a_parameter_that_is_missing_or_unknown_is_named(
    pool: Database, given: dict[str, Value], named: str
) -> None:
    with pytest.raises(TypeError, match=named):
        pool.execute(Statement("example", "SELECT :a, :b"), **given)


def test_values_are_what_they_are_in_python(pool: Database) -> None:
    statement = Statement(
        "example", "SELECT :text, :int::int, :float::float8, :yes::bool, :no::bool, :none"
    )
    values: dict[str, Value] = {
        "text": ":int",
        "int": -7,
        "float": 1e-07,
        "yes": True,
        "no": False,
        "none": None,
    }
    assert pool.execute(statement, **values) == [[*values.values()]]
    assert pool.execute("SELECT ':text', '00:00'::time::text") == [[":text", "00:00:00"]]
