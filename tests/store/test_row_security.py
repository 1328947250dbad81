"""Row security on our tables hides nobody: what it would change is refused."""

from __future__ import annotations

import json

import pytest

from tests.support.in_process import served
from tests.support.outage import PASSWORD
from tests.support.postgres import Server

ADMIN = "YWRtaW4gdG9rZW4gZm9yIHRlc3RzIG9ubHksIG9rYXk"
_BODY = json.dumps({"email": "ada@example.com", "password": PASSWORD}).encode()
_LOG_IN, _STATISTICS, _HEALTH = (
    ("POST", "/api/login"),
    ("GET", "/api/stats"),
    ("GET", "/api/health"),
)
_REFUSED: dict[str, list[tuple[str, str]]] = {
    "users": [_LOG_IN, _STATISTICS],
    "identities": [],
    "revoked_sessions": [],
    "auth_attempts": [_LOG_IN],
    "auth_events": [_LOG_IN, _STATISTICS],
}


def test_what_row_security_would_mislead_is_refused_and_the_log_names_the_table(
    postgres: Server, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A login would be 401 and a logged-out session valid. It may begin while a process serves."""
    with served(DATABASE_URL=postgres.url(database), ADMIN_TOKEN=ADMIN) as app:

        def call(method: str, path: str) -> tuple[object, str]:
            headers = [("Authorization", f"Bearer {ADMIN}"), ("Content-Type", "application/json")]
            response = app.send(method, path, headers, _BODY if method == "POST" else b"")
            status = (response.json or {}).get("database", {}).get("status")
            return status or response.status_code, capsys.readouterr().out

        assert call("POST", "/api/signup")[0] == 201
        for table, refused in _REFUSED.items():
            alter = f"ALTER TABLE {table} {{0}} ROW LEVEL SECURITY"
            postgres.run(f"{alter.format('ENABLE')}; {alter.format('FORCE')}", database)
            for method, path in [*refused, _HEALTH]:
                status, log = call(method, path)
                assert status == (503 if path != _HEALTH[1] else "disconnected"), (table, path)
                refusal = "42501 query would be affected by row-level security policy for table"
                assert f'{refusal} \\"{table}\\"' in log
            postgres.run(f"{alter.format('NO FORCE')}; {alter.format('DISABLE')}", database)
            assert call(*_HEALTH)[0] == "connected"
        assert call(*_LOG_IN)[0] == 200
