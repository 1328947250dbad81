"""Transfers run to their end, users files written, and the database read without our code."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Generator
from typing import Any, TypeVar

from shared.database.pool import Database
from shared.database.settings import DatabaseSettings
from shared.database.url import DatabaseUrl
from shared.transfer import export, importing
from shared.transfer.importing import Applied, Plan
from shared.transfer.json_rows import JsonSource
from shared.transfer.steps import Done, Event, Outcome, run
from tests.support.postgres import Server

HASH = "$2a$10$XR9XOTAzgRo3T2W7gyER5OZvKrJfbJegrzSAKZFdccjSDqBOAhkhe"
Result = TypeVar("Result")


def finish(transfer: Generator[Event, None, Result]) -> tuple[Result, list[Outcome]]:
    """Run a transfer, and give its result and those it named."""
    *events, done = run(transfer)
    assert isinstance(done, Done)
    return done.result, [event for event in events if isinstance(event, Outcome)]


def source_of(rows: list[Any] | bytes) -> JsonSource:
    """Make a source of rows, or of the bytes of a file."""
    return JsonSource(io.BytesIO(rows if isinstance(rows, bytes) else json.dumps(rows).encode()))


def user(number: int, **members: Any) -> dict[str, Any]:
    """Give a row as the old server writes it; a member that is `...` is left out."""
    row = {
        "id": f"{number:08x}-0000-4000-8000-000000000000",
        "email": f"user{number}@example.com",
        "password": HASH,
        "provider": "local",
        "createdAt": "2025-06-09T17:54:12.721Z",
        "updatedAt": "2025-06-09T17:54:12.723Z",
    } | members
    return {name: value for name, value in row.items() if value is not ...}


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    """Leave out what there is none of."""
    return {name: number for name, number in counts.items() if number}


class Target:
    """A migrated database, reached by our code and, to check it, by psql as the superuser."""

    def __init__(self, server: Server, name: str, port: int | None = None) -> None:
        self.server = server
        self.name = name
        self.database = Database(DatabaseUrl.parse(server.url(name, port=port)), DatabaseSettings())

    def close(self) -> None:
        """Let go of connections."""
        self.database.close()

    def plan(self, rows: list[Any] | bytes) -> tuple[Plan, list[Outcome]]:
        """Plan an import."""
        return finish(importing.plan(self.database, source_of(rows)))

    def apply(self, rows: list[Any] | bytes, **options: Any) -> tuple[Applied, list[Outcome]]:
        """Apply an import."""
        options = {"batch_id": importing.new_batch_id(0), "run_by": "test"} | options
        return finish(importing.apply(self.database, source_of(rows), **options))

    def verify(self, rows: list[Any] | bytes) -> tuple[Plan, list[Outcome]]:
        """Verify an import."""
        return finish(importing.verify(self.database, source_of(rows)))

    def export(self) -> bytes:
        """Export every user."""
        written = bytearray()
        finish(export.export(self.database, written.extend))
        return bytes(written)

    def run(self, sql: str) -> list[list[Any]]:
        """Run SQL as the superuser, past our code."""
        return self.server.run(sql, self.name)

    def psql(self, sql: str) -> list[list[str]]:
        """Ask with psql, and give the fields of its unaligned output."""
        command = ["psql", "-XAtq", "-F", "\x1f", "-R", "\x1e", "-c", sql]
        text = self._tool(*command)
        return [line.split("\x1f") for line in text.split("\x1e")] if text else []

    def users(self) -> dict[str, list[str]]:
        """Read every user with psql, by id, in UTC."""
        rows = self.psql(
            "SELECT id, email, email_key, coalesce(password, '∅'), coalesce(name, '∅'),"
            " coalesce(provider, '∅'), coalesce(created_at AT TIME ZONE 'UTC', '-infinity'),"
            " coalesce(updated_at AT TIME ZONE 'UTC', '-infinity'), epoch FROM users ORDER BY id"
        )
        return {row[0]: row[1:] for row in rows}

    def identities(self) -> list[list[str]]:
        """Read every identity with psql: issuer, subject and the user's id, by user and order."""
        return self.psql(
            "SELECT issuer, subject, user_id FROM identities ORDER BY user_id, created_at, issuer"
        )

    def dump(self, *options: str) -> str:
        """Give what pg_dump sees, by itself everything, but for its random comment lines."""
        text = self._tool("pg_dump", *options)
        return "\n".join(line for line in text.splitlines() if not line.startswith("\\"))

    def _tool(self, program: str, *arguments: str) -> str:
        return subprocess.run(
            [self.server.programs / program, *arguments],
            env={
                "PATH": os.environ["PATH"], "PGUSER": "postgres", "PGDATABASE": self.name,
                "PGHOST": str(self.server.folder / "data"), "PGPORT": str(self.server.port),
            },
            check=True, capture_output=True, text=True,
        ).stdout.removesuffix("\n")  # fmt: skip
