"""What every answer has, and what an error says outside of the log."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.emulator import Emulator, running_emulator
from tests.support.wire import JSON, LIMIT, filled

PASSWORD = "correct horse battery staple"


def test_every_problem_has_the_members_of_rfc_9457_and_the_old_pages_error(
    emulator: Emulator,
) -> None:
    with emulator.client() as client:
        answers = [
            client.get("/api/user"),
            client.get("/api/nothing"),
            client.get("/robots.txt"),
            client.get("/api/login"),
            client.post("/api/login", content=b"{", headers=JSON),
            client.post("/api/login", json={}),
            client.post("/api/login", json={"email": "a@example.com", "password": "x"}),
            client.post("/api/login", content=filled(LIMIT + 1), headers=JSON),
            client.post("/api/logout", headers={"Origin": "https://evil.example"}),
        ]
    for response in answers:
        problem = response.json()
        assert response.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "request_id", "error"} <= set(problem)
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["X-Request-Id"]
        assert problem["error"] == problem["detail"] != ""


def test_every_answer_carries_the_security_headers(emulator: Emulator, address: str) -> None:
    with emulator.client() as client:
        answers = [
            client.post("/api/signup", json={"email": address, "password": PASSWORD}),
            client.get("/api/user"),
            client.get("/api/health"),
            client.post("/api/logout"),
            client.get("/api/user"),
            client.get("/api/nothing"),
            client.get("/robots.txt"),
            client.post("/api/login", content=filled(LIMIT + 1), headers=JSON),
        ]
    for response in answers:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Request-Id"]
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Strict-Transport-Security" not in response.headers  # plain HTTP, in a test


def test_an_unforeseen_error_is_a_bare_500_and_its_cause_only_in_the_log(
    make_broken_emulator: Emulator,
) -> None:
    with make_broken_emulator.client() as client:
        response = client.post(
            "/api/signup", json={"email": "ada@example.com", "password": "hunter2hunter2"}
        )
    assert response.status_code == 500
    problem = response.json()
    assert problem["code"] == "internal_error"
    assert "users" not in response.text
    assert "42P10" not in response.text
    (line,) = [line for line in make_broken_emulator.log() if line.get("status") == 500]
    assert line["request_id"] == problem["request_id"]
    assert line["severity"] == "ERROR"
    assert line["cause"].startswith("42P10")
    assert line["stack"]


@pytest.fixture
def make_broken_emulator(postgres: Any, database: str) -> Any:
    """An emulator whose unique index is dropped behind its back."""
    with running_emulator(DATABASE_URL=postgres.url(database)) as running:
        with running.client() as client:
            assert client.get("/api/health").json()["database"]["status"] == "connected"
        postgres.run("DROP INDEX idx_users_email_key", database)
        yield running
