"""A role that owns nothing, with what docs/DATABASE_SETUP.md grants it, serves every request."""

from __future__ import annotations

import re

from tests.support.emulator import ROOT, running_emulator
from tests.support.postgres import PASSWORD, Server
from tests.support.stores import postgres_store

DOCUMENT = (ROOT / "docs" / "DATABASE_SETUP.md").read_text()
(GRANTS,) = re.findall(r"```sql\n(GRANT.*?)```", DOCUMENT, re.DOTALL)
ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}
NEW = "another long passphrase"
ADMIN_TOKEN = "bGVhc3QgcHJpdmlsZWdlIGlzIGZvciBhZG1pbmlzdHJhdG9ycw"


def test_the_grants_of_the_document_are_enough_and_no_table_can_be_changed(
    postgres: Server, database: str
) -> None:
    postgres.run(f"CREATE ROLE requests LOGIN PASSWORD '{PASSWORD}'", database)
    try:
        postgres.run(GRANTS, database)
        url = postgres.url(database, user="requests")
        with running_emulator(
            DATABASE_URL=url, AUTO_MIGRATE="false", ADMIN_TOKEN=ADMIN_TOKEN
        ) as emulator:
            with emulator.client() as client:
                statuses = [
                    client.post("/api/signup", json=ADA).status_code,
                    client.post("/api/login", json=ADA).status_code,
                    client.get("/api/account").status_code,
                    client.post(
                        "/api/password",
                        json={"currentPassword": ADA["password"], "newPassword": NEW},
                    ).status_code,
                    client.post("/api/logout", json={"everywhere": True}).status_code,
                    client.post("/api/login", json=ADA | {"password": NEW}).status_code,
                    client.request("DELETE", "/api/account", json={"password": NEW}).status_code,
                    client.get(
                        "/api/stats", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
                    ).status_code,
                ]
            assert statuses == [201, 200, 200, 200, 200, 200, 204, 200]
            assert "permission denied" not in emulator.output()
        # Whom the old server adds under an address of which SQL makes no key.
        postgres.run(
            "INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'a@xn--bcher-kva.example')",
            database,
        )
        store = postgres_store(DATABASE_URL=url, AUTO_MIGRATE="false")
        store.clean_up()
        store.close()
        assert postgres.run("SELECT email_key FROM users", database) == [["a@bücher.example"]]
    finally:
        postgres.run("DROP OWNED BY requests; DROP ROLE requests", database)


def test_who_may_change_events_needs_no_further_grant_for_the_hours_to_be_marked(
    postgres: Server, database: str
) -> None:
    """As of the version before there were such hours."""
    change = (
        "INSERT INTO auth_events (at, kind) VALUES ('2024-02-29 12:00Z', 'login');"
        "INSERT INTO auth_events (at, kind) VALUES ('2024-02-29 12:30Z', 'login');"
        "UPDATE auth_events SET kind = 'logout'; DELETE FROM auth_events"
    )
    postgres.run("CREATE ROLE earlier", database)
    try:
        postgres.run("GRANT SELECT, INSERT, UPDATE, DELETE ON auth_events TO earlier", database)
        postgres.run(f"SET ROLE earlier; {change}", database)
        hours = "SELECT DISTINCT hour AT TIME ZONE 'UTC' FROM changed_hours"
        assert [[str(hour)] for (hour,) in postgres.run(hours, database)] == [
            ["2024-02-29 12:00:00"]
        ]
    finally:
        postgres.run("DROP OWNED BY earlier; DROP ROLE earlier", database)
