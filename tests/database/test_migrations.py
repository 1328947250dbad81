"""The schema: how it comes to be, and how an old database is adopted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.database import migrations
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused
from shared.model.emails import email_key
from shared.store.postgres.preparation import bring_up_to_date
from tests.support.emulator import ROOT, environment, running_emulator
from tests.support.old_database import HASH, OLD_DDL, OLD_ROWS
from tests.support.postgres import Server
from tests.support.waiting import until

OLD_INSERT = (
    "INSERT INTO users (id, email, password, name, provider) "
    "VALUES ('{id}', '{email}', NULL, NULL, 'local')"
)


def _migrate(server: Server, name: str) -> None:
    bring_up_to_date(DatabaseUrl.parse(server.url(name)), DatabaseSettings())


@pytest.fixture
def empty(make_database: Callable[..., str]) -> str:
    """The name of a database without tables."""
    return make_database(migrated=False)


@pytest.fixture
def old(postgres: Server, empty: str) -> str:
    """The name of a database as the old server leaves it."""
    postgres.run(f"SET ROLE app; {OLD_DDL}", empty)
    postgres.run(OLD_ROWS, empty)
    return empty


def test_the_first_connection_makes_the_schema(postgres: Server, empty: str) -> None:
    with (
        running_emulator(DATABASE_URL=postgres.url(empty)) as emulator,
        emulator.client() as client,
    ):
        response = client.post(
            "/api/signup", json={"email": "ada@example.com", "password": "correct horse"}
        )
        assert response.status_code == 201
        applied = [line["migration"] for line in emulator.log() if "migration" in line]
    files = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))
    assert applied == files
    recorded = postgres.run("SELECT name, checksum FROM schema_migrations ORDER BY version", empty)
    assert recorded == [[item.name, item.checksum] for item in migrations.load()]


@pytest.mark.parametrize("number", [8, pytest.param(20, marks=pytest.mark.long)])
def test_instances_that_start_at_once_on_an_empty_database_all_come_up(
    postgres: Server, empty: str, number: int
) -> None:
    code = (
        "import sys, time; from main import applications; opened = applications.own.store;"
        "time.sleep(max(0, float(sys.argv[1]) - time.time())); print(opened.user(sys.argv[2]))"
    )
    start = str(time.time() + 0.3 * number)
    instances = [
        subprocess.Popen(
            [sys.executable, "-c", code, start, str(uuid.uuid4())],
            cwd=ROOT,
            env=environment(DATABASE_URL=postgres.url(empty)),
            stdout=subprocess.PIPE,
        )
        for _ in range(number)
    ]
    outputs = [instance.communicate()[0] for instance in instances]
    assert [instance.returncode for instance in instances] == [0] * number
    assert all(output.endswith(b"None\n") for output in outputs)
    ((count,),) = postgres.run("SELECT count(*) FROM schema_migrations", empty)
    assert count == len(migrations.load())


def test_a_second_run_changes_nothing(postgres: Server, empty: str) -> None:
    _migrate(postgres, empty)
    before = postgres.run("SELECT * FROM schema_migrations", empty)
    _migrate(postgres, empty)
    assert postgres.run("SELECT * FROM schema_migrations", empty) == before


def test_without_auto_migrate_a_missing_migration_is_a_clear_503(
    postgres: Server, empty: str
) -> None:
    with (
        running_emulator(DATABASE_URL=postgres.url(empty), AUTO_MIGRATE="false") as emulator,
        emulator.client() as client,
    ):
        login = {"email": "ada@example.com", "password": "correct horse"}
        assert client.post("/api/login", json=login).status_code == 503
        assert "0001_users.sql" in emulator.output()
        assert "AUTO_MIGRATE is off" in emulator.output()
        assert postgres.run("SELECT to_regclass('users')", empty) == [[None]]
        by_hand = subprocess.run(
            [sys.executable, "-m", "shared.transfer", "schema", "apply"],
            cwd=ROOT,
            env=environment(DATABASE_URL=postgres.url(empty)),
            capture_output=True,
            text=True,
            check=True,
        )
        assert by_hand.stdout.splitlines()[-1] == "The database is up to date."
        # An instance that was refused looks again in seconds.
        until(lambda: client.post("/api/login", json=login).status_code == 401)


def test_a_role_that_may_not_make_tables_is_a_503_that_says_so(
    postgres: Server, empty: str
) -> None:
    postgres.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    url = postgres.url(empty, user="guest", password="guest")
    with running_emulator(DATABASE_URL=url) as emulator, emulator.client() as client:
        login = {"email": "ada@example.com", "password": "correct horse"}
        for _ in range(2):
            response = client.post("/api/login", json=login)
            assert response.status_code == 503
            assert "permission" not in response.text
        assert "The role guest may not make tables in the schema public. GRANT" in emulator.output()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that a test may edit."""
    copy = tmp_path / "migrations"
    shutil.copytree(ROOT / "migrations", copy)
    load = migrations.load
    monkeypatch.setattr(migrations, "load", lambda: load(copy))
    return copy


def test_an_applied_file_that_was_edited_is_refused_by_name(
    postgres: Server, empty: str, folder: Path
) -> None:
    _migrate(postgres, empty)
    file = folder / "0001_users.sql"
    file.write_text(file.read_text() + "-- a harmless comment\n")
    with pytest.raises(StoreRefused, match=r"0001_users\.sql was edited"):
        _migrate(postgres, empty)


def test_a_newer_schema_than_the_code_knows_is_left_alone(
    postgres: Server, empty: str, folder: Path
) -> None:
    (folder / "9001_later.sql").write_text("CREATE TABLE later (id integer);")
    _migrate(postgres, empty)
    (folder / "9001_later.sql").unlink()
    _migrate(postgres, empty)
    assert postgres.run("SELECT count(*) FROM schema_migrations", empty) == [
        [len(migrations.load()) + 1]
    ]


@pytest.mark.parametrize("name", ["users.sql", "1_users.sql", "0001 users.sql"])
def test_a_file_that_is_not_numbered_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(StoreRefused, match=name):
        migrations.load()


# Adopting the old server's database


def _old_rows(server: Server, name: str) -> list[list[Any]]:
    return server.run("SELECT id, email, password, name, provider FROM users ORDER BY id", name)


def test_an_old_database_is_adopted_with_every_row_kept(postgres: Server, old: str) -> None:
    rows = _old_rows(postgres, old)
    times = "SELECT created_at{0}, updated_at{0} FROM users ORDER BY id"
    as_utc = postgres.run(times.format(" AT TIME ZONE 'UTC'"), old)
    _migrate(postgres, old)
    assert _old_rows(postgres, old) == rows
    assert postgres.run(times.format(""), old) == as_utc
    types = postgres.run(
        "SELECT DISTINCT data_type FROM information_schema.columns "
        "WHERE table_name = 'users' AND column_name LIKE '%_at'",
        old,
    )
    assert types == [["timestamp with time zone"]]
    assert postgres.run("SELECT sid FROM session", old) == [["sid"]]


def test_of_adopted_rows_that_differ_only_in_case_the_lower_case_one_has_the_key(
    postgres: Server, old: str
) -> None:
    _migrate(postgres, old)
    keys = postgres.run("SELECT email, email_key FROM users ORDER BY id", old)
    assert keys == [
        ["Grace.Hopper@Example.COM", "grace.hopper@example.com"],
        ["Ada@example.com", None],
        ["ada@example.com", "ada@example.com"],
        ["ÜMLAUT@Example.de", "ümlaut@example.de"],
        ["google@example.com", "google@example.com"],
        ["Eve@example.com", None],
        ["EVE@example.com", "eve@example.com"],
    ]


def test_addresses_that_sql_spells_otherwise_get_the_key_that_a_login_looks_for(
    postgres: Server, old: str
) -> None:
    addresses = [
        "b@xn--bcher-kva.example",
        "İvan@example.com",
        "ΟΔΥΣΣΕΥΣ@example.com",
        "x@\uff45xample.com",
        "Straße@example.de",
    ]
    insert = "INSERT INTO users (email, password, updated_at) VALUES ('{0}', '{1}', '2025-01-01')"
    for address in (*addresses, "ivan@example.com"):
        postgres.run(insert.format(address, HASH), old)
    _migrate(postgres, old)
    rows = postgres.run("SELECT email, email_key FROM users WHERE updated_at = '2025-01-01'", old)
    keys: dict[str, str] = dict(rows)
    assert {address: keys[address] for address in addresses} == {
        address: email_key(address) for address in addresses
    }
    assert keys["ivan@example.com"] == "ivan@example.com"
    with running_emulator(DATABASE_URL=postgres.url(old)) as emulator, emulator.client() as client:
        for address in addresses:
            login = {"email": address, "password": "secret"}
            assert client.post("/api/login", json=login).status_code == 200, address
            login["password"] = "new password"
            assert client.post("/api/signup", json=login).status_code == 409, address


def test_a_key_that_belongs_to_another_row_is_not_taken_from_it(postgres: Server, old: str) -> None:
    for address in ("x@bücher.example", "x@xn--bcher-kva.example"):
        postgres.run(f"INSERT INTO users (email) VALUES ('{address}')", old)
    _migrate(postgres, old)
    _migrate(postgres, old)
    keys = postgres.run(
        "SELECT email, email_key FROM users WHERE email LIKE 'x@%' ORDER BY email", old
    )
    assert keys == [["x@bücher.example", "x@bücher.example"], ["x@xn--bcher-kva.example", None]]


def test_adopted_users_log_in_and_cannot_be_signed_up_again(postgres: Server, old: str) -> None:
    with running_emulator(DATABASE_URL=postgres.url(old)) as emulator, emulator.client() as client:
        for email, number in (
            ("Grace.Hopper@Example.COM", 1),
            ("grace.hopper@example.com", 1),
            ("Ada@example.com", 3),
            ("Ümlaut@example.de", 4),
        ):
            response = client.post("/api/login", json={"email": email, "password": "secret"})
            assert response.status_code == 200, email
            assert response.json()["id"] == f"00000000-0000-4000-8000-00000000000{number}"
            taken = client.post("/api/signup", json={"email": email, "password": "new password"})
            assert taken.status_code == 409


def test_the_old_servers_statements_go_on_working(postgres: Server, old: str) -> None:
    _migrate(postgres, old)
    new_id = "00000000-0000-4000-8000-000000000099"
    insert = (
        "INSERT INTO users (id, email, password, name, provider) "
        f"VALUES ('{new_id}', 'Mixed.Case@Example.com', '{HASH}', 'Mixed', 'local') "
        "RETURNING id, email, name, provider, created_at, updated_at"
    )
    ((inserted_id, email, *_),) = postgres.run(insert, old)
    assert (str(inserted_id), email) == (new_id, "Mixed.Case@Example.com")
    found = postgres.run("SELECT * FROM users WHERE email = 'Mixed.Case@Example.com'", old)
    assert len(found) == 1
    postgres.run(f"UPDATE users SET name = 'Changed' WHERE id = '{new_id}'", old)
    with running_emulator(DATABASE_URL=postgres.url(old)) as emulator, emulator.client() as client:
        login = {"email": "mixed.case@example.com", "password": "secret"}
        assert client.post("/api/login", json=login).json()["id"] == new_id
        login["password"] = "new password"
        assert client.post("/api/signup", json=login).status_code == 409
        # And the other way round: what is signed up here is found there.
        client.post("/api/signup", json={"email": "New@Example.com", "password": "new password"})
    found = postgres.run("SELECT provider FROM users WHERE email = 'new@example.com'", old)
    assert found == [["local"]]


def test_the_schema_has_the_old_systems_indexes_and_trigger(postgres: Server, empty: str) -> None:
    _migrate(postgres, empty)
    indexes = postgres.run("SELECT indexname FROM pg_indexes WHERE tablename = 'users'", empty)
    assert {"idx_users_email", "idx_users_provider", "idx_users_created_at"} <= {
        name for (name,) in indexes
    }
    postgres.run(OLD_INSERT.format(id="0" * 32, email="ada@example.com"), empty)
    postgres.run("UPDATE users SET updated_at = '2000-01-01'", empty)
    assert postgres.run("SELECT updated_at > '2020-01-01' FROM users", empty) == [[True]]


def test_rows_are_written_whatever_the_search_path_of_the_writer_is(
    postgres: Server, empty: str
) -> None:
    postgres.run("CREATE SCHEMA auth AUTHORIZATION app", empty)
    url = postgres.url(empty, options="-csearch_path%3Dauth")
    bring_up_to_date(DatabaseUrl.parse(url), DatabaseSettings())
    for statement in (
        "INSERT INTO auth.users (id, email) VALUES (gen_random_uuid(), 'Ada@Example.com')",
        "INSERT INTO auth.users (id, email) VALUES (gen_random_uuid(), 'x@xn--bcher-kva.example')",
        "UPDATE auth.users SET email = 'Eve@Example.com' WHERE email = 'Ada@Example.com'",
        "INSERT INTO auth.auth_events (at, kind) VALUES ('2024-02-29 12:00Z', 'login')",
    ):
        postgres.run(statement, empty)
    keys = "SELECT email_key, updated_at IS NOT NULL FROM auth.users ORDER BY email"
    assert postgres.run(keys, empty) == [["eve@example.com", True], [None, True]]
    assert postgres.run("SELECT count(*) FROM auth.pending_email_keys", empty) == [[1]]
    assert postgres.run("SELECT count(*) FROM auth.changed_hours", empty) == [[1]]


def test_a_changed_address_changes_its_key(postgres: Server, database: str) -> None:
    postgres.run(OLD_INSERT.format(id="0" * 32, email="ada@example.com"), database)
    postgres.run("UPDATE users SET email = 'Eve@Example.com'", database)
    assert postgres.run("SELECT email_key FROM users", database) == [["eve@example.com"]]
