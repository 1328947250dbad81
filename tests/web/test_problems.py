"""What every answer has, and what an error says outside of the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.rules.accounts import Accounts
from tests.support.emulator import Emulator
from tests.support.in_process import served
from tests.support.postgres import Server
from tests.support.wire import JSON, LIMIT, filled

PASSWORD = "correct horse battery staple"
_SECRET = "for no line of a log"
_SIGN_UP = {"email": "ada@example.com", "password": PASSWORD}


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError(_SECRET)  # The log quotes the line, not the text.

    monkeypatch.setattr(Accounts, "sign_up", break_down)
    with served(USE_DATABASE="false", USERS_FILE=str(tmp_path / "users.json")) as app:
        response = app.post("/api/signup", _SIGN_UP)
    assert response.status_code == 500
    problem = response.json
    assert problem is not None
    assert problem["code"] == "internal_error"
    output = capsys.readouterr().out
    (line,) = [line for line in map(json.loads, output.splitlines()) if line.get("status") == 500]
    assert line["request_id"] == problem["request_id"]
    assert (line["severity"], line["exception"]) == ("ERROR", "RuntimeError")
    assert line["stack"]
    assert _SECRET not in output + response.text


def test_what_the_database_refuses_is_a_503_and_its_cause_only_in_the_log(
    postgres: Server, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(DATABASE_URL=postgres.url(database)) as app:
        assert app.send("GET", "/api/health").status_code == 200
        postgres.run("DROP INDEX idx_users_email_key", database)
        response = app.post("/api/signup", _SIGN_UP)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    problem = response.json
    assert problem is not None
    assert problem["code"] == "store_unavailable"
    assert "users" not in response.text
    assert "42P10" not in response.text
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    (line,) = [line for line in lines if line.get("status") == 503]
    assert line["request_id"] == problem["request_id"]
    assert (line["severity"], line["sqlstate"], line["statement"]) == ("ERROR", "42P10", "create")
    assert line["cause"].startswith("42P10: there is no unique or exclusion constraint")
    assert "stack" not in line
