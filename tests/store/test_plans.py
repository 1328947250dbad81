"""How statements find their rows, and that none waits for another in a circle."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.database.statement import Statement
from shared.model.clients import Client
from shared.model.users import User
from shared.store.postgres import mail_statements, outbox_sql, statements, statistics
from tests.support.emulator import UNLIMITED
from tests.support.postgres import Server
from tests.support.stores import opened_store

ON_THE_OLD_SERVERS_TABLE = ("EXPRESS_USER", "DELETE_EXPRESS", "HAS_EXPRESS")
READ_AS_A_WHOLE = ("STATUS",)
UPKEEP = ("CLEAN_UP", "LEASE")
"""What reads many rows where there are many to deal with."""
STATEMENTS = {
    name: value
    for module in (statements, mail_statements, outbox_sql)
    for name, value in vars(module).items()
    if isinstance(value, Statement)
}
_FILL = """
INSERT INTO users (id, email, email_key, created_at)
SELECT md5(n::text)::uuid, key, key, now() - n * interval '8 hours'
FROM generate_series(1, 3000) n, concat(n, '@example.com') key;
INSERT INTO identities (issuer, subject, user_id)
SELECT 'https://accounts.google.com', email, id FROM users;
INSERT INTO auth_attempts (key, remaining, expires_at)
SELECT email, 5, now() + random() * interval '15 minutes' FROM users;
INSERT INTO revoked_sessions (sid, ends_at, user_id)
SELECT email, now() + random() * interval '30 days', id FROM users;
INSERT INTO auth_events (at, kind, user_id, client)
SELECT now() - random() * interval '30 days', 'login', id, '203.0.113.0/24' FROM users;
INSERT INTO mail_outbox (id, kind, recipient, user_id, due_at)
SELECT id, 'verification', email, id, now() + random() * interval '1 day' FROM users;
INSERT INTO import_records (user_id, batch, digest) SELECT id, 1, sha256('') FROM users;
INSERT INTO applied_ops (operation, outcome) SELECT id, 'created' FROM users
"""


@pytest.mark.parametrize(
    "name", sorted(STATEMENTS.keys() - {*ON_THE_OLD_SERVERS_TABLE, *READ_AS_A_WHOLE})
)
def test_every_statement_finds_its_rows_by_an_index(
    postgres: Server, database: str, name: str
) -> None:
    plan = postgres.generic_plan(STATEMENTS[name].text, database)
    assert "Seq Scan" not in str(plan)


@pytest.fixture
def filled(postgres: Server, database: str) -> str:
    """A database with some thousand rows in each table, of which the planner knows."""
    postgres.run(_FILL, database)
    with postgres.connect(database) as connection:
        connection.run("VACUUM ANALYZE")
    return database


def test_no_statement_of_a_request_reads_a_table_where_that_seems_cheaper(
    postgres: Server, filled: str
) -> None:
    """It would, if the planner took a few rows for many: up to some thousand it is cheaper then."""
    names = STATEMENTS.keys() - {*ON_THE_OLD_SERVERS_TABLE, *READ_AS_A_WHOLE, *UPKEEP}
    plans = {
        name: postgres.generic_plan(STATEMENTS[name].text, filled, avoids_tables=False)
        for name in names
    }
    assert {
        name: line
        for name, plan in plans.items()
        for line in plan
        if "Seq Scan on " in line and "Seq Scan on pg_" not in line
    } == {}


def test_statistics_count_all_users_by_an_index_and_read_only_those_of_late(
    postgres: Server, filled: str
) -> None:
    plan = postgres.generic_plan(statistics.STATISTICS.text, filled, avoids_tables=False)
    scans = {line.strip(" ->").split("  ")[0] for line in plan if " on users" in line}
    assert scans == {
        "Index Only Scan using idx_users_provider on users",
        "Index Scan using idx_users_created_at on users users_1",
    }


def test_attempts_on_the_same_rows_at_once_never_wait_for_each_other_in_a_circle(
    postgres: Server, database: str
) -> None:
    """A deadlock would be repeated, and only the server's log would tell."""
    logged = len(postgres.log())
    settings = UNLIMITED | {
        "DATABASE_URL": postgres.url(database),
        "DATABASE_MAX_CONNECTIONS": "8",
        "LOCKOUT_TIME": "1000",
    }
    store = opened_store(**settings)
    emails = [f"user{number}@example.com" for number in range(3)]
    for email in emails:
        store.create_user(User(str(uuid.uuid4()), email, None, "local"), "hash")

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            client = Client(f"192.0.2.{chance.randrange(3)}")
            attempt = store.begin_login(chance.choice([*emails, "nobody@x.org"]), client)
            if attempt.credentials and chance.random() < 0.5:
                store.end_login(attempt)
            if chance.random() < 0.2:
                store.clean_up()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    store.close()
    assert "deadlock detected" not in postgres.log()[logged:]
