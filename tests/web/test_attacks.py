"""What a hostile page or client tries: cross-site calls, and members and headers not theirs."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import main
from tests.support.emulator import Emulator, running_emulator
from tests.support.in_process import Served, served

JSON = ("Content-Type", "application/json")
PASSWORD = "correct horse battery staple"
OTHER_PASSWORD = "quite another horse altogether"
CREDENTIALS = {"email": "ada@example.com", "password": PASSWORD}
HOST = "api.example.com"
ALLOWED = "https://app.example.com"
ADMIN_TOKEN = "Zm9yIHRoZSBhZG1pbmlzdHJhdG9ycyBvZiB0aGUgdGVzdHM"
Victim = tuple[Served, tuple[str, str]]


def _sign_up(app: Served, **credentials: str) -> tuple[str, str]:
    """Sign up, and give the header with the session."""
    answer = app.post("/api/signup", CREDENTIALS | credentials)
    assert answer.status_code == 201
    return ("Cookie", answer.headers["Set-Cookie"].split(";")[0])


# Cross-site calls

BODIES: dict[str, dict[str, Any]] = {
    "signup": {"email": "mallory@example.com", "password": PASSWORD},
    "login": CREDENTIALS,
    "google": {"idToken": "a.b.c"},
    "logout": {"everywhere": True},
    "password": {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD},
    "account": {"password": PASSWORD},
    "email": {"newEmail": "mallory@example.com", "password": PASSWORD},
    "email_verification": {},
    "email_verify": {"token": "a.b.c", "password": PASSWORD},
    "password_forgot": {"email": CREDENTIALS["email"]},
    "password_reset": {"token": "a.b.c", "newPassword": OTHER_PASSWORD},
    "login_mail": {"email": CREDENTIALS["email"]},
    "login_mail_verify": {"token": "a.b.c"},
    "mail_delivery": {},
    "migrate": {"action": "status"},
}
"""What would change something, by function. Whoever reads has no body."""

SUCCESS = {
    "signup": 201,
    "login": 200,
    "logout": 200,
    "password": 200,
    "account": 204,
    "email": 202,
    "email_verification": 202,
    "email_verify": 400,
    "password_forgot": 202,
    "password_reset": 400,
    "login_mail": 202,
    "login_mail_verify": 400,
    "mail_delivery": 404,
}
CHANGES = [
    ("DELETE" if name == "account" else "POST", path, name)
    for path, name in main.ROUTES.items()
    if name in BODIES
]


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Served]:
    """The functions in production, with one allowed origin and everything that can be set."""
    with _in_production(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """The same, with somebody's session: what is refused changes neither."""
    with _in_production(tmp_path_factory.mktemp("victim")) as running:
        yield running, _sign_up(running)


def _in_production(folder: Path) -> AbstractContextManager[Served]:
    return served(
        ENVIRONMENT="production",
        USE_DATABASE="false",
        USERS_FILE=str(folder / "users.json"),
        BCRYPT_ROUNDS="10",
        ALLOWED_ORIGINS=ALLOWED,
        ADMIN_TOKEN=ADMIN_TOKEN,
        GOOGLE_CLIENT_ID="client.apps.googleusercontent.com",
        MAIL_URL="smtp://127.0.0.1:9",
        MAIL_FROM="no-reply@example.com",
        PUBLIC_URL=f"https://{HOST}",
        SIGN_IN_BY_MAIL="true",
    )


def test_the_table_has_every_path_that_changes_something(strict: Served) -> None:
    ours = ("Authorization", strict.application.wake.authorization(time.time()))
    for path, name in main.ROUTES.items():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = strict.send(method, path, [("Origin", ALLOWED), ours])
            assert (answer.status_code != 405) == ((method, path, name) in CHANGES)


@pytest.mark.parametrize(("method", "path", "name"), CHANGES)
def test_our_own_page_can_make_every_change(
    strict: Served, method: str, path: str, name: str
) -> None:
    session = _sign_up(strict)
    body = json.dumps(BODIES[name]).encode()
    headers = [JSON, session, ("Origin", f"https://{HOST}"), ("Sec-Fetch-Site", "same-origin")]
    answer = strict.send(method, path, headers, body, base_url=f"https://{HOST}")
    assert answer.status_code == SUCCESS.get(name, 401)


@pytest.mark.parametrize(
    "attack",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": f"https://{HOST}"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": f"http://{HOST}"},
        {"Origin": f"https://{HOST}:8443"},
        {"Origin": f"https://{HOST}/"},
        {"Origin": f"https://{HOST}.evil.example"},
        {"Origin": f"https://evil{HOST}"},
        {"Origin": f"https://evil.example/{HOST}"},
        {"Origin": f"https://{HOST}@evil.example"},
        {"Origin": f"https://evil.example#://{HOST}"},
        {"Origin": f"evil://{HOST}"},
        {"Origin": f"://{HOST}"},
        {"Origin": HOST},
        {"Origin": f"https://{HOST}, https://evil.example"},
        {"Origin": "http://app.example.com"},
        {"Origin": f"{ALLOWED}:8443"},
        {"Origin": f"{ALLOWED}/"},
        {"Origin": f"{ALLOWED}.evil.example"},
        {"Origin": "https://xapp.example.com"},
        {"Origin": "https://example.com"},
        {"Origin": "file://"},
        {"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"},
        {"Origin": "https://evil.example", "Forwarded": "host=evil.example"},
    ],
    ids=str,
)
def test_no_page_but_ours_changes_anything(victim: Victim, attack: dict[str, str]) -> None:
    _refused(victim, 403, *attack.items())


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "text/plain;charset=UTF-8",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
        "application/jsonx",
        "text/json",
        "application/json,text/plain",
        "text/plain,application/json",
    ],
)
def test_what_a_form_can_send_changes_nothing_even_from_a_browser_that_tells_no_origin(
    victim: Victim, content_type: str
) -> None:
    _refused(victim, 415, ("Content-Type", content_type))


def _refused(victim: Victim, status: int, *attack: tuple[str, str]) -> None:
    app, session = victim
    before = app.settings.store.users_file.read_bytes()
    for method, path, name in CHANGES:
        body = json.dumps(BODIES[name]).encode()
        headers = dict([JSON, session, *attack]).items()
        answer = app.send(method, path, headers, body, base_url=f"https://{HOST}")
        # Some credentials are asked for before the body is looked at, or instead.
        unknown = {"migrate": 401, "mail_delivery": 404}.get(name, status)
        assert answer.status_code in (status, unknown), path
        assert "Set-Cookie" not in answer.headers
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert app.settings.store.users_file.read_bytes() == before


# Members and parameters that no client has any business setting


@pytest.fixture
def app(store_settings: dict[str, str]) -> Iterator[Served]:
    """The functions on each kind of store in turn."""
    with served(**store_settings) as running:
        yield running


FOREIGN_ID = "00000000-0000-4000-8000-000000000000"
UNASKED: dict[str, Any] = {
    "id": FOREIGN_ID,
    "userId": FOREIGN_ID,
    "user_id": FOREIGN_ID,
    "sub": FOREIGN_ID,
    "provider": "google",
    "epoch": 7,
    "password_hash": "$2b$04$x",
    "passwordHash": "$2b$04$x",
    "hash": "$2b$04$x",
    "email_key": "root@example.com",
    "emailVerified": True,
    "createdAt": "1999-01-01T00:00:00.000Z",
    "created_at": "1999-01-01T00:00:00.000Z",
    "updatedAt": "1999-01-01T00:00:00.000Z",
    "updated_at": "1999-01-01T00:00:00.000Z",
    "identities": [{"issuer": "https://accounts.google.com", "subject": "1"}],
    "issuer": "https://accounts.google.com",
    "subject": "1",
    "revokedSessions": [{"sid": "x", "endsAt": 1}],
    "sid": "x",
    "email_verified": True,
    "email_verified_at": "1999-01-01T00:00:00.000Z",
    "verified": True,
    "admin": True,
    "isAdmin": True,
    "role": "admin",
    "roles": ["admin"],
    "__proto__": {"admin": True},
    "constructor": {"prototype": {"admin": True}},
}


def test_a_sign_up_stores_nothing_that_was_not_asked_for(app: Served) -> None:
    _sign_up(app, email="first@example.com")
    answer = app.post("/api/signup", CREDENTIALS | UNASKED)
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json.keys() == {"id", "email", "name", "provider", "emailVerified"}
    assert answer.json["emailVerified"] is False
    assert answer.json["provider"] == "local"
    stored = app.stored_users()
    reference, user = stored["first@example.com"], stored["ada@example.com"]
    own = {"id", "email", "email_key", "password", "createdAt", "updatedAt", "created_at"}
    for member in (
        (user.keys() | reference.keys())
        - own
        - {"updated_at", "unverified_since", "unverifiedSince"}
    ):
        assert user.get(member) == reference.get(member), member
    assert user.keys() == reference.keys()
    assert user["id"] == answer.json["id"] != FOREIGN_ID
    assert user["password"].startswith("$2b$04$")
    assert "1999" not in str(user)
    assert "root@example.com" not in str(user)


def test_no_other_call_stores_or_reaches_what_its_members_name(app: Served) -> None:
    bob = _sign_up(app, email="bob@example.com")
    session = _sign_up(app)
    before = app.stored_users()
    bobs_id = before["bob@example.com"]["id"]
    unasked = UNASKED | {"id": bobs_id, "userId": bobs_id, "user_id": bobs_id, "sub": bobs_id}
    unasked |= {"email": "bob@example.com", "name": "Eve"}
    credentials = unasked | CREDENTIALS
    assert app.post("/api/login", credentials).status_code == 200
    assert app.stored_users() == before
    change = {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD}
    answer = app.post("/api/password", unasked | change, session)
    assert answer.status_code == 200
    after = app.stored_users()
    moved = {"password", "epoch", "updatedAt", "updated_at"}
    assert _without(after["ada@example.com"], moved) == _without(before["ada@example.com"], moved)
    assert (before["ada@example.com"].get("epoch", 0), after["ada@example.com"]["epoch"]) == (0, 1)
    session = ("Cookie", answer.headers["Set-Cookie"].split(";")[0])
    everywhere = unasked | {"everywhere": True}
    assert app.post("/api/logout", everywhere, session).status_code == 200
    answer = app.post("/api/login", CREDENTIALS | {"password": OTHER_PASSWORD})
    session = ("Cookie", answer.headers["Set-Cookie"].split(";")[0])
    body = json.dumps(unasked | {"password": OTHER_PASSWORD}).encode()
    assert app.send("DELETE", "/api/account", [JSON, session], body).status_code == 204
    assert app.stored_users() == {"bob@example.com": before["bob@example.com"]}
    assert app.send("GET", "/api/account", [bob]).status_code == 200


def _without(record: dict[str, Any], members: set[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in members}


@pytest.mark.parametrize(
    "override", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Method"]
)
def test_no_header_or_parameter_makes_a_method_another_one(app: Served, override: str) -> None:
    session = _sign_up(app)
    more = [session, (override, "DELETE")]
    for path in ("/api/account", "/api/account?_method=DELETE", "/api/account?method=DELETE"):
        assert app.send("GET", path, more).status_code == 200
        answer = app.post(path, {"password": PASSWORD, "_method": "DELETE"}, *more)
        assert answer.status_code == 405
    answer = app.post("/api/user", {}, session, (override, "GET"))
    assert answer.status_code == 405
    assert app.stored_users().keys() == {"ada@example.com"}


def test_what_stands_in_the_query_is_neither_read_nor_preferred(app: Served) -> None:
    session = _sign_up(app)
    _sign_up(app, email="bob@example.com")
    query = f"?email=bob@example.com&email=x&password={PASSWORD}&everywhere=true&token=x&session=x"
    answer = app.post(f"/api/login{query}", CREDENTIALS)
    assert answer.json is not None
    assert answer.json["email"] == "ada@example.com"
    assert app.post(f"/api/login{query}", {}).status_code == 400
    for path in ("/api/user", "/api/account"):
        assert app.send("GET", path + query).status_code == 401
        answer = app.send("GET", path + query, [session])
        assert answer.json is not None
        assert answer.json["email"] == "ada@example.com"
    before = app.stored_users()
    assert app.send("DELETE", f"/api/account{query}", [session]).status_code == 400
    assert app.post(f"/api/logout{query}", {}).status_code == 200
    assert app.stored_users() == before


# Headers over real HTTP


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that believes one proxy."""
    users_file = tmp_path_factory.mktemp("proxy") / "users.json"
    with running_emulator(
        USERS_FILE=str(users_file), TRUSTED_PROXIES="1", MAX_CLIENT_ATTEMPTS="5", MAX_SIGNUPS="3"
    ) as running:
        yield running


def _forgeries(number: int) -> list[tuple[str, str]]:
    """What a client writes to look like another one each time."""
    address = f"10.0.0.{number}"
    return [
        ("X-Forwarded-For", f"{address}, {address}"),
        ("X_Forwarded_For", address),
        ("Forwarded", f"for={address}"),
        ("X-Real-IP", address),
        ("X-Client-IP", address),
        ("True-Client-IP", address),
        ("CF-Connecting-IP", address),
        ("X-Cluster-Client-IP", address),
        ("X-Appengine-User-IP", address),
        ("Via", f"1.1 {address}"),
    ]


@pytest.mark.parametrize(("path", "most", "status"), [("login", 5, 401), ("signup", 3, 201)])
def test_forged_headers_give_a_network_no_more_attempts_and_cost_another_none(
    behind_a_proxy: Emulator, path: str, most: int, status: int
) -> None:
    def attempt(number: int, seen_by_the_proxy: str) -> int:
        # A line of its own, or the end of the client's: a proxy does the one or the other.
        headers = _forgeries(number)
        if number % 2:
            headers.append(("X-Forwarded-For", seen_by_the_proxy))
        else:
            headers[0] = ("X-Forwarded-For", f"{headers[0][1]}, {seen_by_the_proxy}")
        body = {"email": f"{path}{seen_by_the_proxy}x{number}@example.com", "password": PASSWORD}
        with behind_a_proxy.client() as client:
            return client.post(f"/api/{path}", json=body, headers=headers).status_code

    answers = [attempt(number, "203.0.113.9") for number in range(most + 3)]
    assert answers == [status] * most + [429] * 3
    assert attempt(0, "203.0.113.10") == status
    assert attempt(0, "10.0.0.1") == status


def test_without_a_trusted_proxy_forged_headers_give_nobody_more_attempts(tmp_path: Path) -> None:
    with (
        running_emulator(USERS_FILE=str(tmp_path / "users.json"), MAX_CLIENT_ATTEMPTS="3") as alone,
        alone.client() as client,
    ):
        answers = [
            client.post(
                "/api/login",
                json={"email": f"user{number}@example.com", "password": PASSWORD},
                headers=_forgeries(number),
            ).status_code
            for number in range(5)
        ]
    assert answers == [401] * 3 + [429] * 2


_POST = b"POST /api/login HTTP/1.1\r\nHost: x\r\n"
_BODY = b'{"email": "a@example.com", "password": "x"}'
_TYPED = b"Content-Type: application/json\r\n"
_LENGTH = b"Content-Length: %d\r\n" % len(_BODY)


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        (_TYPED + _LENGTH, {401}),
        (_TYPED + _LENGTH + _LENGTH, {400}),
        (_TYPED + _LENGTH + b"Content-Length: 2\r\n", {400}),
        (_TYPED + b"Content-Length: +%d\r\n" % len(_BODY), {400}),
        (_TYPED + b"Content-Length: -1\r\n", {400}),
        (_TYPED + b"Content-Length: 1e1\r\n", {400}),
        (_TYPED + b"Content-Length: " + b"9" * 5000 + b"\r\n", {400, 413}),
        (_TYPED + _LENGTH + b"Transfer-Encoding: chunked\r\n", {400}),
        (_TYPED + _TYPED + _LENGTH, {400}),
        (_TYPED + b"Content-Type: text/plain\r\n" + _LENGTH, {400}),
        (b"Content-Type: text/plain\r\n" + _TYPED + _LENGTH, {400}),
        (_TYPED + _LENGTH + b"Origin: null\r\nOrigin: http://x\r\n", {403}),
        (_TYPED + _LENGTH + b"Origin: http://x\r\nOrigin: http://x\r\n", {403}),
        (_TYPED + _LENGTH + b"Host: y\r\n", {400, 401}),
        (_TYPED + _LENGTH + b"Cookie: session=a\r\nCookie: session=b\r\n", {401}),
        (_TYPED + _LENGTH + b"Content_Length: 2\r\n", {400, 401}),
        (_TYPED + _LENGTH + b"X-Folded: a\r\n b\r\n", {400}),
        (_TYPED + _LENGTH + b"X-NUL: a\0b\r\n", {400}),
        (_TYPED + _LENGTH + b"X-Big: " + b"x" * 100_000 + b"\r\n", {400, 431}),
        (_TYPED + _LENGTH + b"Cookie: session=" + b"x" * 8000 + b"\r\n", {401}),
        (_TYPED + _LENGTH + b"X-Many: x\r\n" * 500, {400, 431}),
        (_TYPED + _LENGTH + b"Expect: 100-continue\r\n", {100, 401}),
        (_TYPED + _LENGTH + b"Expect: something\r\n", {400, 401, 417}),
    ],
    ids=lambda value: value[-60:].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_doubled_oversized_and_malformed_headers_are_refused_or_harmless(
    emulators: dict[str, Emulator], headers: bytes, statuses: set[int]
) -> None:
    host, port = emulators["json"].url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(_POST + headers + b"\r\n" + _BODY)
        answer = connection.recv(65536)
    assert int(answer.split()[1]) in statuses


@pytest.mark.parametrize("header", ["Script_Name", "Path_Info", "SCRIPT_NAME", "Remote_Addr"])
def test_no_header_takes_the_place_of_the_path(emulator: Emulator, header: str) -> None:
    with emulator.client() as client:
        response = client.get("/api/user", headers={header: "/api/livez"})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
