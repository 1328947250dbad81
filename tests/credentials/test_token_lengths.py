"""Whoever is let in gets a session that can be read again, in a cookie that a browser keeps."""

from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credentials.passwords import PasswordHasher
from shared.credentials.session_keys import parse
from shared.credentials.session_tokens import NAME_MAX_LENGTH, SessionTokens
from shared.credentials.signing import Signing
from shared.errors import StoreRefused
from shared.model.sessions import FRESH_SECONDS, SESSION_SECONDS
from shared.model.users import User
from tests.support.emulator import SECRET as EMULATOR_SECRET
from tests.support.emulator import Emulator, running_emulator
from tests.support.postgres import Server
from tests.support.session_keys import make_ed25519, make_p256, private_pem
from tests.support.transfers import Target

NOW = 1_800_000_000.7
PASSWORD = "correct horse battery staple"
HASH = PasswordHasher(4).hash(PASSWORD)
SECRET = "a-secret-that-is-long-enough-for-hs256"
COOKIE_NAME = "__Host-" + "x" * 57
"""As long as it may be."""
ATTRIBUTES = f"; Secure; HttpOnly; Max-Age={SESSION_SECONDS}; Path=/; SameSite=Lax"
BROWSERS_LIMIT = 4096
"""Bytes (RFC 6265bis, section 5.5)."""
TOKENS = {
    "HS256": SessionTokens(Signing([SECRET])),
    "ES256": SessionTokens(Signing([SECRET], parse(private_pem(make_p256())))),
    "EdDSA": SessionTokens(Signing([SECRET], parse(private_pem(make_ed25519())))),
}
ID = "a63472b0-a053-5c05-a7e6-582ae2e0bd53"
WIDEST = ["\x01", "\x7f", '"', "\\", "é", "ж", "中", "\u2028", "\ufeff", "😀", "\U0010ffff"]


def _check(tokens: SessionTokens, user: User, method: str = "password") -> None:
    issued = tokens.issue(user, NOW, method=method)
    session = tokens.read(issued.text, NOW)
    assert (session.user.id, session.user.email) == (user.id, user.email)
    assert (session.user.provider, session.user.epoch) == (user.provider, user.epoch)
    assert session.user.name == (user.name and user.name[:NAME_MAX_LENGTH])
    assert len(f"{COOKIE_NAME}={issued.text}{ATTRIBUTES}") <= BROWSERS_LIMIT
    if not user.is_degraded:
        renewed = tokens.issue(user, NOW + 1000, renews=session)
        assert tokens.read(renewed.text, NOW + 1000).user == session.user
        assert len(renewed.text) == len(issued.text)


def _column(width: int) -> st.SearchStrategy[str]:
    """Any text that PostgreSQL stores in so many characters, and often the widest."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, max_size=width) | st.sampled_from(WIDEST).map(lambda c: c * width)


@given(
    email=_column(255),
    name=st.none() | _column(255),
    provider=_column(50),
    epoch=st.integers(0, 2**31 - 1),
    is_degraded=st.booleans(),
    method=st.sampled_from(["password", "google", "express"]),
)
@pytest.mark.parametrize("algorithm", TOKENS)
def test_whoever_fits_a_database_fits_a_token(
    algorithm: str,
    email: str,
    name: str | None,
    provider: str,
    epoch: int,
    is_degraded: bool,
    method: str,
) -> None:
    user = User(ID, email, name, provider, epoch, is_degraded)
    _check(TOKENS[algorithm], user, method)


@pytest.mark.parametrize("character", WIDEST)
@pytest.mark.parametrize("algorithm", TOKENS)
def test_a_row_that_is_full_of_any_character_fits_a_token(algorithm: str, character: str) -> None:
    user = User(ID, character * 255, character * 255, character * 50, 2**31 - 1, is_degraded=True)
    _check(TOKENS[algorithm], user)


@pytest.mark.parametrize("name", ["\ud83d", "a\ud83d" * 99, "a\0b", "\udfff\0" * 80])
def test_half_a_character_in_a_name_keeps_nobody_out(name: str) -> None:
    tokens = TOKENS["HS256"]
    session = tokens.read(tokens.issue(User(ID, "a@example.com", name, "local"), NOW).text, NOW)
    assert session.user.name is not None
    assert len(session.user.name) == min(len(name), NAME_MAX_LENGTH)
    assert session.user.name.replace("\ufffd", "").isascii()


@pytest.mark.parametrize(
    "user",
    [
        User(ID, "é" * 3000, None, "local"),
        User("x" * 4000, "a@example.com", None, "local"),
        User(ID, "a@example.com", None, "p" * 4000),
        User(ID, "a\ud800@example.com", None, "local"),
        User("\0", "a@example.com", None, "local"),
        User(ID, "a@example.com", None, "local", epoch=2**31),
        User(ID, "a@example.com", None, "local", epoch=-1),
    ],
)
def test_who_fits_no_token_gets_none(user: User) -> None:
    with pytest.raises(StoreRefused, match="no session can hold"):
        TOKENS["HS256"].issue(user, NOW)


# Over real HTTP


def _forged(**claims: object) -> str:
    """Sign a stale token with anything in it, as somebody who has the secret might."""
    now = time.time() - 2 * FRESH_SECONDS
    token = SessionTokens(Signing([EMULATOR_SECRET])).issue(
        User(ID, "a@example.com", None, "local"), now
    )
    header, encoded, _ = token.text.split(".")
    known = json.loads(base64.urlsafe_b64decode(encoded + "=="))
    signed = f"{header}.{_base64url(json.dumps(known | claims).encode())}".encode()
    signature = hmac.digest(EMULATOR_SECRET.encode(), signed, "sha256")
    return f"{signed.decode()}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "claims",
    [
        {"sid": "x\0y"},
        {"sid": "\ud800"},
        {"sid": "x" * 2000},
        {"sub": "\0"},
        {"sub": "\ud800"},
        {"email": "\0@example.com"},
        {"email": "\ud800@example.com"},
        {"epoch": 2**31},
        {"epoch": -(2**70)},
    ],
)
def test_a_signed_token_that_no_statement_could_take_is_401(
    emulator: Emulator, claims: dict[str, object]
) -> None:
    token = _forged(**claims)
    body = {"currentPassword": PASSWORD, "password": PASSWORD, "newPassword": PASSWORD + "!"}
    with emulator.client(headers={"Cookie": f"session={token}"}) as client:
        for method, path in (("GET", "/api/user"), ("GET", "/api/account")):
            assert client.request(method, path).status_code == 401
        for method, path in (("POST", "/api/password"), ("DELETE", "/api/account")):
            assert client.request(method, path, json=body).status_code == 401
        for everywhere in (False, True):
            answer = client.post("/api/logout", json={"everywhere": everywhere})
            assert answer.status_code == (401 if everywhere else 200)


LONG = "ж" * 240 + "@example.com"
NAMES = {
    "long": LONG,
    "wide": "😀" * 240 + "@example.com",
    "escaped": '"\\' * 120 + "@example.com",
    "letters": "x" * 240 + "@example.com",
}


def _stays_logged_in(client: httpx.Client, answer: httpx.Response, email: str) -> None:
    assert answer.status_code in (200, 201), answer.text
    assert len(answer.headers["Set-Cookie"]) <= BROWSERS_LIMIT
    found = client.get("/api/user")
    assert found.status_code == 200
    assert found.json()["email"] == email
    assert client.get("/api/account").status_code == 200


def test_who_is_imported_logs_in_and_stays_so(postgres: Server, target: Target) -> None:
    target.apply(
        [{"email": email, "password": HASH, "name": "😀" * 255} for email in NAMES.values()]
    )
    with running_emulator(DATABASE_URL=postgres.url(target.name)) as running:
        for email in NAMES.values():
            with running.client() as client:
                answer = client.post("/api/login", json={"email": email, "password": PASSWORD})
                _stays_logged_in(client, answer, email)


def test_who_is_in_a_users_file_logs_in_and_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    rows = [
        {"id": f"user-{kind}", "email": email, "password": HASH, "name": "\ud83d" * 300}
        for kind, email in NAMES.items()
    ]
    rows.append({"id": "x" * 5000, "email": "x@example.com", "password": HASH})
    file.write_text(json.dumps(rows))
    with running_emulator(USERS_FILE=str(file)) as running:
        for email in NAMES.values():
            with running.client() as client:
                answer = client.post("/api/login", json={"email": email, "password": PASSWORD})
                _stays_logged_in(client, answer, email)
        with running.client() as client:
            credentials = {"email": "x@example.com", "password": PASSWORD}
            assert client.post("/api/login", json=credentials).status_code == 503
            assert not list(client.cookies)
        assert "no session can hold the id, the address, the provider" in running.output()


def test_who_signs_up_with_the_longest_texts_stays_logged_in(emulator: Emulator) -> None:
    # An address may have 254 bytes, its domain in Punycode; every part of it 64.
    domain = ".".join(["ü" * 20] * 4) + ".example.com"
    emails = f"{'ж' * 20}@{domain}", f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 55}.com"
    for email, name in zip(emails, ("😀" * NAME_MAX_LENGTH, '"' * NAME_MAX_LENGTH), strict=True):
        with emulator.client() as client:
            body = {"email": email, "password": PASSWORD, "name": name}
            _stays_logged_in(client, client.post("/api/signup", json=body), email)
            assert client.get("/api/user").json()["name"] == name
