"""What statements cost: none of those that requests wait for reads a whole table."""

from __future__ import annotations

from contextlib import closing

import pytest

from shared.store import statements
from tests.support.postgres import Server

ON_THE_OLD_SERVERS_TABLE = ("EXPRESS_USER", "DELETE_EXPRESS")
NAMES = [
    name
    for name, value in vars(statements).items()
    if name[0] != "_" and name.isupper() and isinstance(value, str)
]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ON_THE_OLD_SERVERS_TABLE])
def test_every_statement_finds_its_rows_by_an_index(
    postgres: Server, database: str, name: str
) -> None:
    with closing(postgres.connect(database)) as connection:
        connection.run("SET enable_seqscan = off")
        plan = connection.run(f"EXPLAIN (GENERIC_PLAN) {getattr(statements, name)}")
    assert "Seq Scan" not in str(plan)
