"""A role that owns nothing, with what docs/DATABASE_SETUP.md grants it, serves every request."""

from __future__ import annotations

import re

from tests.support.emulator import ROOT, running_emulator
from tests.support.postgres import PASSWORD, Server

DOCUMENT = (ROOT / "docs" / "DATABASE_SETUP.md").read_text()
(GRANTS,) = re.findall(r"```sql\n(GRANT.*?)```", DOCUMENT, re.DOTALL)
ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}
NEW = "another long passphrase"


def test_the_grants_of_the_document_are_enough_and_no_table_can_be_changed(
    postgres: Server, database: str
) -> None:
    postgres.run(f"CREATE ROLE requests LOGIN PASSWORD '{PASSWORD}'", database)
    try:
        postgres.run(GRANTS, database)
        url = postgres.url(database, user="requests")
        with running_emulator(DATABASE_URL=url, AUTO_MIGRATE="false") as emulator:
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
                ]
            assert statuses == [201, 200, 200, 200, 200, 200, 204]
            assert "permission denied" not in emulator.output()
    finally:
        postgres.run("DROP OWNED BY requests; DROP ROLE requests", database)
