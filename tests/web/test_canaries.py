"""No secret that goes in, as a setting or in a request, comes out again anywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

import main
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import USER, Server
from tests.support.relay import Relay
from tests.support.session_keys import make_p256, private_pem
from tests.support.waiting import until

SETTINGS = {
    name: f"canary+{name.lower().replace('_', '-')}+K7qX2mVw9ZrT4bYd8LcN"
    for name in ("SESSION_SECRET", "ADMIN_TOKEN", "DATABASE_PASSWORD", "WEBHOOK", "MAIL_PASSWORD")
}
SECRET = "canary+of+a+request+Hs5Gt7Jk"
"""A password, a token, a cookie: whatever is nobody's business."""
ADDRESS = "canary-address"
"""Of a user, which the user sees and the log does not."""
TRACE = "0af7651916cd43dd8448eb211c80319c"


@cache
def _forms(secret: str) -> set[bytes]:
    """Give a secret as it may come out, beginning at any byte of a base64 text."""
    encoded = {base64.b64encode(secret[i:].encode())[:-4] for i in range(3)}
    return encoded | {secret.encode(), quote(secret).encode(), json.dumps(secret)[1:-1].encode()}


def _assert_without(secrets: set[str], text: bytes, where: str) -> None:
    for secret in secrets:
        assert not any(form in text for form in _forms(secret)), f"{secret} is in {where}"


@pytest.fixture
def database_url(postgres: Server, database: str, relay: Relay) -> Iterator[str]:
    """The URL of a role whose password is a secret of this test, by way of the relay."""
    password = SETTINGS["DATABASE_PASSWORD"]
    postgres.run(f"CREATE ROLE canary LOGIN PASSWORD '{password}' IN ROLE {USER}")
    yield postgres.url(database, port=relay.port, user="canary", password=quote(password))
    postgres.run("DROP ROLE canary")


def _hostile(client: httpx.Client) -> None:
    """Put secrets and addresses wherever a request has room, on every path."""
    session = client.cookies.get("session", "")
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": f"session={SECRET}; connect.sid=s%3A{SECRET}.x",
        "X-Forwarded-For": SECRET,
        "User-Agent": SECRET,
        "Referer": f"https://example.com/?{SECRET}",
        "X-Cloud-Trace-Context": f"{SECRET}/1;o=1",
        "traceparent": f"00-{TRACE}-{SECRET[:16]}-01",
        "X-Request-Id": SECRET,
        "Forwarded": SECRET,
    }
    members = {
        "email": f"{ADDRESS}@example.com",
        "password": SECRET,
        "currentPassword": SECRET,
        "newPassword": SECRET + "2",
        "idToken": f"{SECRET}.{SECRET}.{SECRET}",
        "token": f"{SECRET}.{SECRET}.{SECRET}",
        "newEmail": f"{ADDRESS}-new@example.com",
        "name": None,
    }
    bodies = [
        json.dumps(members).encode(),
        json.dumps(members | {"email": f"{ADDRESS}\ud800@example.com"}).encode(),
        json.dumps({SECRET: SECRET}).encode(),
        f'{{"password": "{SECRET}'.encode(),
        f'[{{"email": "{ADDRESS}@example.com", "password": "{SECRET}", "id": 7}}]'.encode(),
    ]
    for path in (*main.ROUTES, f"/api/{SECRET}"):
        for body in bodies:
            for method in ("GET", "POST", "DELETE", "PUT"):
                for cookie in (headers["Cookie"], f"session={session}"):
                    sent = headers | {"Cookie": cookie, "Content-Type": "application/json"}
                    url = f"{path}?{SECRET}={SECRET}&action=plan"
                    answer = client.request(method, url, headers=sent, content=body)
                    shown = answer.content + str(answer.headers).encode()
                    _assert_without({SECRET, *SETTINGS.values()}, shown, f"{method} {path}")


def _operate(client: httpx.Client) -> None:
    """Look at all that operators see."""
    headers = {"Authorization": f"Bearer {SETTINGS['ADMIN_TOKEN']}"}
    for path in ("/api/metrics", "/api/dashboard", "/api/stats", "/api/health"):
        answer = client.get(path, headers=headers)
        assert answer.status_code in (200, 503), path
        _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, path)
    for action in ("status", "reconcile"):
        answer = client.post("/api/migrate", headers=headers, json={"action": action})
        _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, action)
    users = [{"id": "x", "email": f"{ADDRESS}-2@example.com", "password": SECRET}]
    answer = client.post("/api/migrate?action=plan", headers=headers, json=users)
    _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, answer.content, "plan")


def _use(emulator: Emulator) -> None:
    user = {"email": f"{ADDRESS}@example.com", "password": SECRET, "name": "Ada"}
    with emulator.client() as client:
        assert client.post("/api/signup", json=user).status_code in (201, 409)
        assert client.post("/api/login", json=user).status_code in (200, 503)
        assert client.post("/api/login", json=user | {"password": SECRET * 2}).status_code == 401
        _hostile(client)
        _operate(client)


@pytest.mark.parametrize("fallback", ["off", "full"])
def test_on_postgres_no_secret_comes_out_whatever_fails(
    database_url: str, relay: Relay, tmp_path: Path, fallback: str
) -> None:
    key = private_pem(make_p256())
    with running_emulator(
        DATABASE_URL=database_url,
        SESSION_SECRET=SETTINGS["SESSION_SECRET"],
        SESSION_PRIVATE_KEY=key,
        ADMIN_TOKEN=SETTINGS["ADMIN_TOKEN"],
        ALERT_WEBHOOK_URL=f"https://127.0.0.1:9/{SETTINGS['WEBHOOK']}",
        ALERT_FAILED_LOGINS="1",
        GOOGLE_CLIENT_ID="1-a.apps.googleusercontent.com",
        USERS_FILE=str(tmp_path / "users.json"),
        FALLBACK=fallback,
        DATABASE_SLOW_QUERY="0",
        MAIL_URL=f"smtps://me:{quote(SETTINGS['MAIL_PASSWORD'])}@127.0.0.1:9",
        MAIL_FROM="no-reply@example.com",
        PUBLIC_URL="http://127.0.0.1:9",
        SIGN_IN_BY_MAIL="true",
    ) as emulator:
        _use(emulator)
        relay.hang_up = 10**9
        relay.cut()
        with emulator.client() as client:
            user = {"email": f"{ADDRESS}-3@example.com", "password": SECRET}
            assert client.post("/api/signup", json=user).status_code in (201, 503)
            _operate(client)
            sentences = (
                "A query was slow",
                "The database is unreachable",
                "The webhook did not accept an alert",
                "A mail could not be delivered yet",
            )
            until(
                lambda: (
                    client.get("/api/livez")
                    and all(sentence in emulator.output() for sentence in sentences)
                )
            )
        output = emulator.output().encode()
    keys = {line for line in key.splitlines() if "-----" not in line}
    _assert_without({SECRET, ADDRESS, *SETTINGS.values(), *keys}, output, "the log")


def test_on_the_json_store_no_secret_comes_out_also_of_a_damaged_file(tmp_path: Path) -> None:
    users_file = tmp_path / "users.json"
    with running_emulator(
        SESSION_SECRET=SETTINGS["SESSION_SECRET"],
        ADMIN_TOKEN=SETTINGS["ADMIN_TOKEN"],
        USERS_FILE=str(users_file),
    ) as emulator:
        _use(emulator)
        users_file.write_text(f'[{{"email": "{ADDRESS}", "password": "{SECRET}"')
        with emulator.client() as client:
            user = {"email": f"{ADDRESS}@example.com", "password": SECRET}
            assert client.post("/api/login", json=user).status_code == 503
        output = emulator.output().encode()
    _assert_without({SECRET, ADDRESS, *SETTINGS.values()}, output, "the log")


def test_the_check_finds_a_secret_that_is_encoded() -> None:
    for text in (SECRET, quote(SECRET), base64.b64encode(f"me:{SECRET}".encode()).decode()):
        with pytest.raises(AssertionError):
            _assert_without({SECRET}, text.encode(), "the text")
