"""Every outcome is a line in the log and a row in the audit, and neither tells a secret."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from shared.model.users import User
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.mails import token_for
from tests.support.postgres import Server
from tests.support.stores import CLIENT, opened_store, pass_time, session_of

PASSWORD, NEW = "correct horse battery staple", "another long passphrase"
ADA = {"email": "ada@example.com", "password": PASSWORD}
ADMIN_TOKEN = "QWRtaW4gb2YgdGhlIGF1ZGl0LCBhbmQgb2Ygbm9ib2R5IGVsc2U"
SECURITY = (ROOT / "docs" / "SECURITY.md").read_text()
HEADERS = {"X-Forwarded-For": "203.0.113.7"}


@pytest.fixture
def audited(postgres: Server, database: str) -> Iterator[Emulator]:
    """An emulator on an empty database, with low limits."""
    with running_emulator(
        DATABASE_URL=postgres.url(database),
        TRUSTED_PROXIES="1",
        MAX_LOGIN_ATTEMPTS="2",
        MAX_CLIENT_ATTEMPTS="6",
        MAX_SIGNUPS="1",
    ) as running:
        yield running


def _rows(postgres: Server, database: str) -> list[list[Any]]:
    return postgres.run(
        "SELECT kind, user_id::text, actor, client FROM auth_events ORDER BY at, kind", database
    )


def test_each_outcome_is_a_row_and_a_line_that_say_the_same(
    postgres: Server, database: str, audited: Emulator
) -> None:
    with audited.client(headers=HEADERS) as client:
        user = client.post("/api/signup", json=ADA).json()["id"]
        new = ADA | {"password": NEW}
        wrong = ADA | {"password": "wrong"}
        calls: list[tuple[str, Any, int]] = [
            ("/api/login", ADA, 200),
            ("/api/login", {"email": "nobody@example.com", "password": "wrong"}, 401),
            ("/api/login", wrong, 401),
            ("/api/password", {"currentPassword": "wrong", "newPassword": NEW}, 403),
            ("/api/login", ADA, 401),
            ("/api/password", {"currentPassword": PASSWORD, "newPassword": NEW}, 429),
            ("/api/signup", ADA, 429),
            ("/api/signup", ADA, 429),
        ]
        for path, body, status in calls:
            assert client.post(path, json=body).status_code == status, path
        client.headers["X-Forwarded-For"] = "198.51.100.9"
        change = {"currentPassword": PASSWORD, "newPassword": NEW}
        assert client.post("/api/password", json=change).status_code == 200
        assert client.post("/api/logout", json={"everywhere": True}).status_code == 200
        assert client.post("/api/login", json=new).status_code == 200
        assert client.post("/api/logout").status_code == 200
        assert client.post("/api/login", json=new).status_code == 200
        assert client.request("DELETE", "/api/account", json=new).status_code == 204
    here, there = "203.0.113.0/24", "198.51.100.0/24"
    rows = _rows(postgres, database)
    (nobody,) = {row[2] for row in rows} - {None}
    assert rows == [
        ["signup", user, None, here],
        ["login", user, None, here],
        ["logout", user, None, here],  # The session of the sign-up, whose place the login's takes.
        ["login_failed", None, nobody, here],
        ["login_failed", user, None, here],
        ["reauthentication_failed", user, None, here],
        ["login_throttled", user, None, here],
        ["reauthentication_throttled", user, None, here],
        ["signup_throttled", None, None, here],
        ["password_changed", user, None, there],
        ["logout_everywhere", user, None, there],
        ["login", user, None, there],
        ["logout", user, None, there],
        ["login", user, None, there],
        ["account_deleted", user, None, there],
    ]
    lines = [line for line in audited.log() if "event" in line]
    assert [(line["event"], line["client"]) for line in lines] == [
        (row[0], row[3]) for row in (*rows[:2], *rows[3:9], rows[8], *rows[9:])
    ]
    assert lines[2]["account"] == nobody
    for line in lines:
        assert line.get("user_id", user) == user
    for secret in ("ada@", "nobody@", PASSWORD, NEW, "203.0.113.7"):
        assert secret not in audited.output()


def test_a_proof_that_is_missing_or_of_an_ended_session_is_a_row_and_a_line_too(
    postgres: Server, database: str, audited: Emulator
) -> None:
    with audited.client(headers=HEADERS) as client:
        user = client.post("/api/signup", json=ADA).json()["id"]
        cookie = {"Cookie": f"session={client.cookies['session']}"}
        assert client.post("/api/password", json={"newPassword": NEW}).status_code == 400
        client.post("/api/logout")
        change = {"currentPassword": PASSWORD, "newPassword": NEW}
        assert client.post("/api/password", json=change, headers=cookie).status_code == 401
    rows = _rows(postgres, database)
    assert [row[:2] for row in rows] == [
        ["signup", user],
        ["reauthentication_failed", user],
        ["logout", user],
        ["reauthentication_failed", None],
    ]
    events = [line["event"] for line in audited.log() if "event" in line]
    assert events == [row[0] for row in rows]


def test_what_is_done_by_mail_is_a_row_and_a_line_too_and_counted(
    postgres: Server, database: str
) -> None:
    with (
        running_emulator(
            DATABASE_URL=postgres.url(database),
            TRUSTED_PROXIES="1",
            MAX_CLIENT_ATTEMPTS="3",
            ENVIRONMENT="development",
            MAIL_DELIVERY="self",
            PUBLIC_URL="http://127.0.0.1:9",
            SIGN_IN_BY_MAIL="true",
            ADMIN_TOKEN=ADMIN_TOKEN,
        ) as emulator,
        emulator.client(headers=HEADERS) as client,
    ):
        user = client.post("/api/signup", json=ADA).json()
        asked, nobody = {"email": ADA["email"]}, {"email": "nobody@example.com"}
        change = {"newEmail": "new@example.com", "password": PASSWORD}
        moved = user | {"email": "new@example.com"}
        tokens = {
            "verification": token_for(user, "verification"),
            "login_link": token_for(user, "login_link"),
            "email_change": token_for(user, "email_change", moved["email"]),
            "password_reset": token_for(moved, "password_reset", epoch=1),
        }
        calls: list[tuple[str, Any, int]] = [
            ("/api/password/forgot", asked, 202),
            ("/api/login/mail", nobody, 202),
            ("/api/email/verification", {}, 202),
            ("/api/login/mail", asked, 429),
            ("/api/login/mail", asked, 429),
            ("/api/email", change, 202),
            ("/api/email/verify", {"token": tokens["verification"]}, 200),
            ("/api/login/mail/verify", {"token": tokens["login_link"]}, 200),
            ("/api/email/verify", {"token": tokens["email_change"]}, 200),
            ("/api/password/reset", {"token": tokens["password_reset"], "newPassword": NEW}, 200),
        ]
        for path, body, status in calls:
            assert client.post(path, json=body).status_code == status, path
        account = {kind for kind, _, actor, _ in _rows(postgres, database) if actor}
        operator = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        outcomes = client.get("/api/stats", headers=operator).json()["outcomes"]
        lines = [line["event"] for line in emulator.log() if "event" in line]
        output = emulator.output()
    kinds = [
        "signup",
        "password_reset_requested",
        "login_link_requested",
        "verification_requested",
        "mail_throttled",
        "email_change_requested",
        "email_verified",
        "login",
        "logout",  # The session of the sign-up, whose place that of the link takes.
        "email_changed",
        "password_reset",
    ]
    rows = _rows(postgres, database)
    assert [row[0] for row in rows] == kinds
    assert account == {"login_link_requested"}
    assert {row[1] for row in rows} == {user["id"], None}
    assert {row[3] for row in rows} == {"203.0.113.0/24"}
    assert outcomes == dict.fromkeys(kinds, 1)
    assert lines == [*kinds[:5], *kinds[4:8], *kinds[9:]]
    for kind in kinds:
        assert f"`{kind}`" in SECURITY
    for secret in (*tokens.values(), "ada@", "nobody@", "new@", PASSWORD, NEW, "203.0.113.7"):
        assert secret not in output


def test_of_a_networks_flood_one_row_is_kept_and_every_line(
    postgres: Server, database: str, audited: Emulator
) -> None:
    with audited.client(headers=HEADERS) as client:
        for number in range(12):
            body = {"email": f"user{number}@example.com", "password": "x"}
            client.post("/api/login", json=body)
    kinds = [row[0] for row in _rows(postgres, database)]
    assert kinds == ["login_failed"] * 6 + ["login_throttled"]
    events = [line["event"] for line in audited.log() if "event" in line]
    assert events == ["login_failed"] * 6 + ["login_throttled"] * 6


def test_of_a_session_that_ended_long_ago_a_logout_writes_nothing(
    postgres: Server, database: str
) -> None:
    store = opened_store(DATABASE_URL=postgres.url(database))
    user = User("x", "x@example.com", None, "local")
    for days in (32, 30.5):
        session = session_of(user, now=time.time() - days * 86400)
        for _ in range(2):
            store.revoke_session(session, CLIENT)
            store.clean_up()
    assert [row[0] for row in _rows(postgres, database)] == ["logout"]
    assert postgres.run("SELECT sid FROM revoked_sessions", database) == [[session.sid]]
    store.close()


def test_what_is_older_than_the_audit_is_kept_is_deleted_a_thousand_at_a_time(
    postgres: Server, database: str
) -> None:
    store = opened_store(DATABASE_URL=postgres.url(database), AUDIT_DAYS="30")
    postgres.run(
        "INSERT INTO auth_events (at, kind) SELECT CURRENT_TIMESTAMP - interval '31 days', 'login'"
        " FROM generate_series(1, 1001)",
        database,
    )
    store.revoke_session(session_of(User("x", "x@example.com", None, "local")), CLIENT)
    assert store.clean_up()
    assert Counter(row[0] for row in _rows(postgres, database)) == {"login": 1, "logout": 1}
    store.clean_up()
    assert [row[0] for row in _rows(postgres, database)] == ["logout"]
    store.close()


def test_cleaning_up_waits_for_nobody_and_takes_nothing_that_is_in_use(
    postgres: Server, database: str
) -> None:
    store = opened_store(DATABASE_URL=postgres.url(database))
    attempt = store.begin_login("ada@example.com", CLIENT)
    pass_time(store, 1000)
    key = attempt.keys.client
    with closing(postgres.connect(database)) as other:
        other.run("BEGIN")
        other.run("SELECT FROM auth_attempts WHERE key = :key FOR UPDATE", key=key)
        assert not store.clean_up()
        other.run("COMMIT")
    rows = postgres.run("SELECT key FROM auth_attempts", database)
    assert rows == [[key]]
    assert not store.clean_up()
    assert postgres.run("SELECT key FROM auth_attempts", database) == []
    store.close()


def test_a_user_reads_what_happened_to_the_account(
    postgres: Server, database: str, audited: Emulator
) -> None:
    with audited.client(headers=HEADERS) as client:
        client.post("/api/signup", json=ADA)
        client.post("/api/login", json=ADA | {"password": "wrong"})
        account = client.get("/api/account").json()
    assert account["email"] == "ada@example.com"
    assert account["hasPassword"] is True
    assert account["identities"] == []
    assert [event["kind"] for event in account["events"]] == ["login_failed", "signup"]
    assert {event["client"] for event in account["events"]} == {"203.0.113.0/24"}
