"""DATABASE_READ_URL: what it may be, and that nothing of it is there without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.environment import InvalidSettings
from shared.settings import Settings
from tests.support.emulator import SECRET
from tests.support.postgres import Server
from tests.support.stores import postgres_store

NEON = "postgresql://user:canary@ep-a-pooler.us-east-2.aws.neon.tech/db"
REPLICA = "postgresql://user:canary@ep-b.us-east-2.aws.neon.tech/db"


def _settings(**variables: str) -> Settings:
    return Settings.from_env({"SESSION_SECRET": SECRET} | variables)


def test_it_is_read_as_the_primarys_and_off_by_itself() -> None:
    assert _settings(DATABASE_URL=NEON).database.read_url is None
    url = _settings(DATABASE_URL=NEON, DATABASE_READ_URL=f" {REPLICA}?sslmode=require ")
    assert url.database.read_url is not None
    assert url.database.read_url.host == "ep-b.us-east-2.aws.neon.tech"
    assert "canary" not in repr(url.database.read_url)


@pytest.mark.parametrize(
    ("primary", "replica", "sentence"),
    [
        (NEON, f"{REPLICA}?sslmode=disable", "DATABASE_READ_URL cannot be used: sslmode=disable"),
        (NEON, "mysql://x", "DATABASE_READ_URL cannot be used: it must begin with postgresql://"),
        ("", REPLICA, "DATABASE_READ_URL needs DATABASE_URL"),
        (NEON, NEON, "names the host, port and database of DATABASE_URL"),
        (NEON, NEON.replace("-pooler", ""), "names the host, port and database of DATABASE_URL"),
        (NEON, f"{NEON}?application_name=x", "names the host, port and database of DATABASE_URL"),
    ],
)
def test_what_cannot_be_a_replica_is_refused_in_a_sentence(
    primary: str, replica: str, sentence: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        _settings(DATABASE_URL=primary, DATABASE_READ_URL=replica)
    (problem,) = caught.value.problems
    assert sentence in problem
    assert "canary" not in problem


def test_another_port_or_database_is_another_place() -> None:
    local = "postgresql://user:canary@localhost:{}/{}"
    for port, name in ((5433, "db"), (5432, "other")):
        _settings(DATABASE_URL=local.format(5432, "db"), DATABASE_READ_URL=local.format(port, name))


def test_without_it_a_store_has_no_replica(postgres: Server, database: str, tmp_path: Path) -> None:
    store = postgres_store(
        DATABASE_URL=postgres.url(database), USERS_FILE=str(tmp_path / "users.json")
    )
    assert store.replica is None
    store.close()
