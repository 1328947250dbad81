"""POST /api/auth/google over HTTP, with real tokens and certificates from a real HTTPS server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from shared.model.sessions import FRESH_SECONDS
from tests.conftest import STORES
from tests.support import express
from tests.support.emulator import SECRET, Emulator, running_emulator
from tests.support.google import SIGN_IN_SOURCE, Providers
from tests.support.in_process import served
from tests.support.postgres import Server
from tests.support.stores import user_of

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module", params=STORES)
def configured(
    request: pytest.FixtureRequest, providers: Providers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulator]:
    """An emulator on each kind of store that knows both providers."""
    settings = {"USERS_FILE": str(tmp_path_factory.mktemp("users") / "users.json")}
    if request.param == "postgres":
        postgres: Server = request.getfixturevalue("postgres")
        settings = {"DATABASE_URL": postgres.url(request.getfixturevalue("make_database")())}
    with running_emulator(source=SIGN_IN_SOURCE, **settings, **providers.settings) as running:
        yield running


def _sign_in(client: httpx.Client, token: str) -> httpx.Response:
    return client.post("/api/auth/google", json={"idToken": token})


def test_a_new_user_is_201_and_then_200_and_signed_in_each_time(
    configured: Emulator, providers: Providers, address: str
) -> None:
    for status in (201, 200):
        with configured.client() as client:
            response = _sign_in(client, providers.google_token(email=address, sub=address))
            assert response.status_code == status
            assert response.json().keys() == {"id", "email", "name", "provider", "emailVerified"}
            assert response.json()["provider"] == "google"
            assert response.json()["emailVerified"] is True
            assert client.get("/api/user").json() == response.json()


def test_an_id_token_is_taken_twenty_times_and_then_another_one_is(
    configured: Emulator, providers: Providers, address: str
) -> None:
    token = providers.google_token(email=address, sub=address)
    with configured.client() as client:
        statuses = [_sign_in(client, token).status_code for _ in range(23)]
        assert statuses == [201, *[200] * 19, *[401] * 3]
        refused = _sign_in(client, token)
        assert refused.json()["code"] == "invalid_identity_token"
        assert "set-cookie" not in refused.headers
        assert client.get("/api/user").status_code == 200
        assert _sign_in(client, providers.google_token(email=address, sub=address, n=1)).is_success


def test_firebase_stores_its_own_name_and_the_same_person_is_the_same_user(
    configured: Emulator, providers: Providers, address: str
) -> None:
    with configured.client() as client:
        token = providers.firebase_token(email=address, subject=address, sub=address)
        first = _sign_in(client, token)
        assert (first.status_code, first.json()["provider"]) == (201, "firebase-google")
        again = _sign_in(client, providers.google_token(email=address, sub=address))
        assert (again.status_code, again.json()) == (200, first.json())
        issuers = {entry["issuer"] for entry in client.get("/api/account").json()["identities"]}
        assert len(issuers) == 2


@pytest.mark.parametrize("token", ["", "x", "a.b.c", None, 7, {}, "x" * 10_000])
def test_what_is_no_token_is_refused_in_a_sentence(configured: Emulator, token: object) -> None:
    with configured.client() as client:
        response = client.post("/api/auth/google", json={"idToken": token})
    assert response.status_code == (401 if isinstance(token, str) and token else 400)
    assert response.json()["error"]
    assert "set-cookie" not in response.headers


def test_a_session_token_is_no_id_token_and_an_id_token_no_session(
    configured: Emulator, providers: Providers, address: str
) -> None:
    with configured.client() as client:
        id_token = providers.google_token(email=address, sub=address)
        _sign_in(client, id_token)
        assert _sign_in(client, client.cookies["session"]).status_code == 401
        client.cookies.clear()
        headers = {"Cookie": f"session={id_token}"}
        assert client.get("/api/user", headers=headers).status_code == 401


def test_who_has_a_password_links_by_logging_in_first(
    configured: Emulator, providers: Providers, address: str
) -> None:
    login = {"email": address, "password": PASSWORD}
    token = providers.google_token(email=address, sub=address)
    with configured.client() as client:
        client.post("/api/signup", json=login)
        client.post("/api/logout")
        refused = _sign_in(client, token)
        assert (refused.status_code, refused.json()["code"]) == (409, "link_required")
        client.post("/api/login", json=login)
        assert _sign_in(client, token).status_code == 200
        client.post("/api/logout")
        assert _sign_in(client, token).json()["provider"] == "local"
        assert client.post("/api/login", json=login).status_code == 200


@pytest.fixture(scope="module")
def beside_the_old_server(
    postgres: Server, old_database: str, providers: Providers
) -> Iterator[Emulator]:
    """An emulator on that database that knows both providers."""
    with running_emulator(
        source=SIGN_IN_SOURCE,
        DATABASE_URL=postgres.url(old_database),
        **providers.settings | {"SESSION_SECRET": express.SECRETS},
    ) as running:
        yield running


@pytest.mark.parametrize("planted", ["connect.sid", "sign-up", "old login", "renewed login"])
@pytest.mark.parametrize("domain", ["gmail.com", "example.com"])
def test_a_session_planted_by_a_pre_hijacker_keeps_no_password_and_links_nothing(
    beside_the_old_server: Emulator,
    providers: Providers,
    postgres: Server,
    old_database: str,
    address: str,
    domain: str,
    planted: str,
) -> None:
    email = address.replace("example.com", domain)
    login = {"email": email, "password": PASSWORD}
    with beside_the_old_server.client() as attacker, beside_the_old_server.client() as victim:
        user = attacker.post("/api/signup", json=login).json()
        cookie = f"session={attacker.cookies['session']}"
        if planted == "connect.sid":
            sess = json.dumps({"cookie": {}, "userId": user["id"]})
            express.add(postgres, old_database, address, sess)
            name, _, value = express.sign(address).partition("=")
            victim.cookies.set(name, value)
            assert victim.get("/api/user").json() == user
            cookie = f"session={victim.cookies['session']}"
        elif planted != "sign-up":
            then = time.time() - FRESH_SECONDS - 1
            cookie = f"session={SessionTokens(Signing([SECRET])).issue(user_of(user), then).text}"
        if planted == "renewed login":
            renewed = attacker.get("/api/user", headers={"Cookie": cookie})
            cookie = renewed.headers["Set-Cookie"].partition(";")[0]
        victim.cookies.clear()
        token = providers.google_token(email=email, sub=address)
        response = victim.post(
            "/api/auth/google", json={"idToken": token}, headers={"Cookie": cookie}
        )
        if domain == "gmail.com":
            assert (response.status_code, response.json()["id"]) == (200, user["id"])
            assert attacker.post("/api/login", json=login).status_code == 401
            assert attacker.get("/api/account").status_code == 401
            assert attacker.get("/api/account", headers={"Cookie": cookie}).status_code == 401
            assert victim.get("/api/account").json()["hasPassword"] is False
        else:
            assert (response.status_code, response.json()["code"]) == (409, "link_required")
            assert attacker.post("/api/login", json=login).status_code == 200
            assert attacker.get("/api/account").json()["identities"] == []


def test_a_first_password_needs_a_session_fresh_from_google(
    configured: Emulator, providers: Providers, address: str
) -> None:
    change = {"newPassword": PASSWORD}
    now = int(time.time())
    with configured.client() as client:
        # The provider asked them an hour ago, however young the session is.
        old = providers.firebase_token(
            email=address, sub=address, subject=address, auth_time=now - 3600
        )
        assert _sign_in(client, old).status_code == 201
        refused = client.post("/api/password", json=change)
        assert (refused.status_code, refused.json()["code"]) == (403, "reauthentication_required")
        assert client.request("DELETE", "/api/account").status_code == 403
        assert client.get("/api/account").json()["hasPassword"] is False
        assert _sign_in(client, providers.google_token(email=address, sub=address)).is_success
        assert client.post("/api/password", json=change).status_code == 200
        login = {"email": address, "password": PASSWORD}
        assert client.post("/api/login", json=login).status_code == 200
        assert client.post("/api/password", json=change).status_code == 400


def test_a_session_that_was_renewed_is_no_fresher_from_google(
    configured: Emulator, providers: Providers, address: str
) -> None:
    with configured.client() as client:
        _sign_in(client, providers.google_token(email=address, sub=address))
        tokens = SessionTokens(Signing([SECRET]))
        session = tokens.read(client.cookies["session"], time.time())
        then = time.time() - FRESH_SECONDS - 5
        stale = tokens.issue(session.user, then, method="google").text
        client.cookies.clear()
        renewed = client.get("/api/user", headers={"Cookie": f"session={stale}"})
        assert renewed.status_code == 200
        assert client.post("/api/password", json={"newPassword": PASSWORD}).status_code == 403


def test_who_signs_in_with_google_just_now_can_delete_the_account_without_a_password(
    configured: Emulator, providers: Providers, address: str
) -> None:
    token = providers.google_token(email=address, sub=address)
    with configured.client() as client:
        _sign_in(client, token)
        response = client.request("DELETE", "/api/account")
        assert (response.status_code, response.content) == (204, b"")
        assert "session" not in client.cookies
        assert _sign_in(client, token).status_code == 201


def test_where_nothing_is_configured_the_user_is_told_what_else_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = {"Origin": "https://app.example.com", "Content-Type": "application/json"}
    with served(USERS_FILE=str(tmp_path / "u.json"), ALLOWED_ORIGINS=page["Origin"]) as app:
        assert app.send("OPTIONS", "/api/auth/google", page.items()).status_code == 204
        answer = app.send("POST", "/api/auth/google", page.items(), b'{"idToken": "x"}')
    assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
    assert answer.json
    assert (answer.status_code, answer.json["code"]) == (404, "google_not_configured")
    assert answer.json["error"] == (
        "Signing in with Google is not available here. Please use your email and password instead."
    )
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["cause"] == "neither GOOGLE_CLIENT_ID nor FIREBASE_PROJECT_ID is set"
