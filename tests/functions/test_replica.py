"""Which server hears what, where there is a read replica: counted in the log of both."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.observe import metrics
from tests.support.in_process import Served, served
from tests.support.mails import delivered
from tests.support.neon_proxy import NeonProxy
from tests.support.replicas import Pair, Said

ADMIN = "cmVwbGljYXMgb2YgdGhlIHRlc3RzLCBub2JvZHkgZWxzZSBoYXM"
BEARER = [("Authorization", f"Bearer {ADMIN}")]
PASSWORD = "correct horse battery staple"
EMAIL = "ada@example.com"
GRACE = 1.0


@contextmanager
def _running(pair: Pair, tmp_path: Path, **settings: str) -> Iterator[Served]:
    variables = {"ADMIN_TOKEN": ADMIN, "USERS_FILE": str(tmp_path / "users.json")}
    with served(**pair.variables | variables | settings) as app:
        yield app


def _stats(app: Served) -> dict[str, Any]:
    answer = app.send("GET", "/api/stats", BEARER)
    assert answer.status_code == 200, answer.text
    return dict(json.loads(answer.data))


def _sign_up(app: Served, email: str = EMAIL) -> str:
    answer = app.post("/api/signup", {"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return answer.headers["Set-Cookie"].split(";")[0]


def test_what_concerns_an_account_never_reaches_the_replica(pair: Pair, tmp_path: Path) -> None:
    mail = {"EMAIL_VERIFICATION": "optional", "MAIL_DELIVERY": "after", "SIGN_IN_BY_MAIL": "true"}
    mail |= {"MAIL_FROM": "auth@example.com", "PUBLIC_URL": "http://localhost"}
    with _running(pair, tmp_path, ENVIRONMENT="development", **mail) as app:
        here, there = Said(pair.standby), Said(pair.primary)
        cookie = ("Cookie", _sign_up(app))
        answers = [
            app.post("/api/login", {"email": EMAIL, "password": PASSWORD}),
            app.post("/api/login", {"email": EMAIL, "password": "wrong"}),
            app.post("/api/login", {"email": "nobody@example.com", "password": PASSWORD}),
            app.send("GET", "/api/user", [cookie]),
            app.send("GET", "/api/account", [cookie]),
            app.post("/api/password/forgot", {"email": EMAIL}),
            app.post("/api/email/verification", {"email": EMAIL}),
            app.post("/api/login/mail", {"email": EMAIL}),
            app.send("GET", "/api/health"),
            app.send("GET", "/api/metrics", BEARER),
            app.post(
                "/api/password",
                {"currentPassword": PASSWORD, "newPassword": "another horse staple"},
                cookie,
            ),
            app.send("POST", "/api/logout", [cookie]),
            app.post("/api/migrate", {"action": "status"}, *BEARER),
        ]
        app.store.clean_up()
        delivered(app)
        statuses = [answer.status_code for answer in answers]
        assert statuses == [200, 401, 401, 200, 200, 202, 202, 202, 200, 200, 200, 200, 200]
        pair.catch_up()
        assert here.lines() == []
        assert len(there.lines()) > len(statuses)


def test_statistics_are_the_replicas_and_say_as_of_when(pair: Pair, tmp_path: Path) -> None:
    with _running(pair, tmp_path) as app:
        _sign_up(app)
        pair.catch_up()
        began = time.time()
        here, there = Said(pair.standby), Said(pair.primary)
        found = _stats(app)
        page = app.send("GET", "/api/dashboard", BEARER)
        assert found["total_users"] == 1
        assert page.status_code == 200
        assert sum(line.startswith("WITH providers") for line in here.lines()) == 2
        (mark,) = there.lines()
        assert mark.startswith("SELECT"), "the primary told once which system it is"
        as_of = datetime.fromisoformat(found["as_of"]).timestamp()
        assert as_of <= began + GRACE
        assert began - as_of < 5
        shown = found["as_of"][:16].replace("T", " ")
        assert f"As of {shown[:14]}" in page.text
        assert "from the read replica" in page.text


def test_where_requests_go_by_http_it_is_read_over_tcp(pair: Pair, tmp_path: Path) -> None:
    with NeonProxy(pair.primary) as proxy, _running(pair, tmp_path, **proxy.settings) as app:
        _sign_up(app)
        pair.catch_up()
        sent = len(proxy.requests)
        found = _stats(app)
        assert found["total_users"] == 1
        assert "as_of" in found
        assert len(proxy.requests) == sent + 1, "the primary told once which system it is"


def test_while_the_replay_stands_still_they_are_of_then(pair: Pair, tmp_path: Path) -> None:
    with _running(pair, tmp_path) as app:
        with pair.paused():
            committed = time.time()
            _sign_up(app)
            found = _stats(app)
            assert found["total_users"] == 0
            assert datetime.fromisoformat(found["as_of"]).timestamp() <= committed
        assert _stats(app)["total_users"] == 1


def test_without_the_setting_the_answer_has_no_such_member(pair: Pair, tmp_path: Path) -> None:
    with _running(pair, tmp_path, DATABASE_READ_URL="") as app:
        found = _stats(app)
        assert "as_of" not in found
        assert "replica" not in app.send("GET", "/api/dashboard", BEARER).text.replace(
            "reads from the replica", ""
        )
        assert app.store.replica is None  # type: ignore[attr-defined]


def test_with_the_replica_dead_or_frozen_everything_is_as_without_it(
    pair: Pair, tmp_path: Path
) -> None:
    outages = metrics.OUTAGES.total
    with _running(pair, tmp_path, DATABASE_TIMEOUT="5") as app:
        _sign_up(app)
        for away in (pair.standby.killed, pair.standby.frozen):
            app.restart()
            with away():
                began = time.monotonic()
                found = _stats(app)
                assert time.monotonic() - began < 5 / 5 + GRACE
                assert found["total_users"] == 1
                assert "as_of" not in found
                began = time.monotonic()
                assert _stats(app)["total_users"] == 1
                assert time.monotonic() - began < GRACE / 2
                assert app.send("GET", "/api/health").status_code == 200
                _sign_up(app, f"{uuid.uuid4()}@example.com")
                pair.run("DELETE FROM users WHERE email <> 'ada@example.com'")
        assert app.application.seconds_away() is None
    assert metrics.OUTAGES.total == outages


def test_where_the_migrations_are_not_replayed_yet_the_primary_answers(
    replicated: Pair, tmp_path: Path
) -> None:
    """The instance's first request applies them, and the replica has not even a table."""
    pair = replicated.fresh(migrated=False)
    with _running(pair, tmp_path) as app:
        with pair.paused():
            assert "as_of" not in _stats(app)
            _sign_up(app)
            app.restart()
            assert _stats(app)["total_users"] == 1
        app.restart()
        assert "as_of" in _stats(app)


def test_where_the_schema_is_behind_or_a_right_is_missing_the_primary_answers(
    pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _running(pair, tmp_path) as app:
        pair.run("ALTER TABLE event_hours RENAME TO not_yet")
        with pair.paused():
            pair.run("ALTER TABLE not_yet RENAME TO event_hours")
            assert "as_of" not in _stats(app)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (told,) = [it for it in lines if it["message"].startswith("The primary answers instead")]
    assert (told["severity"], told["outcome"], told["read"]) == ("WARNING", "unfit", "statistics")
    assert "event_hours" in told["cause"]
    pair.run("CREATE ROLE reader LOGIN PASSWORD 'p@ss/word'")
    pair.catch_up()
    url = pair.standby.url(pair.name, user="reader")
    with _running(pair, tmp_path, DATABASE_READ_URL=url) as app:
        assert "as_of" not in _stats(app)
