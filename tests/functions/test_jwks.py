"""Sessions signed with a key pair over HTTP, and docs/TOKENS.md, run as it stands there."""

from __future__ import annotations

import base64
import re
import runpy
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.credentials.session_keys import parse
from shared.credentials.session_tokens import AUDIENCE, TYPE, SessionTokens
from shared.credentials.signing import ISSUER, Signing
from shared.model.sessions import FRESH_SECONDS
from shared.model.users import User
from tests.support.emulator import ROOT, SECRET, Emulator, running_emulator
from tests.support.session_keys import make_ed25519, make_p256, public_pem
from tests.support.stores import user_of

DOCUMENT = (ROOT / "docs" / "TOKENS.md").read_text()
URL = "https://auth.example.com"
PATH = "/.well-known/jwks.json"
PASSWORD = "correct horse"


def _snippet(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory, openssl_program: str) -> str:
    """A private key, made as the document says."""
    folder = tmp_path_factory.mktemp("keys")
    for line in _snippet("console").splitlines():
        subprocess.run(line.removeprefix("$ ").split(), cwd=folder, check=True, capture_output=True)
    private = (folder / "session-key.pem").read_text()
    loaded = load_pem_private_key(private.encode(), None)
    assert (folder / "session-key.pub.pem").read_text() == public_pem(loaded)
    return private


@pytest.fixture(scope="module")
def asymmetric(pem: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that signs with the key, on the JSON store."""
    users_file = tmp_path_factory.mktemp("asymmetric") / "users.json"
    extra = public_pem(make_ed25519())
    with running_emulator(
        USERS_FILE=str(users_file), SESSION_PRIVATE_KEY=(pem + extra).replace("\n", "\\n")
    ) as emulator:
        yield emulator


@pytest.fixture
def user(asymmetric: Emulator, address: str) -> User:
    """A user who has signed up there."""
    with asymmetric.client() as client:
        body = client.post("/api/signup", json={"email": address, "password": PASSWORD}).json()
    return user_of(body)


@pytest.fixture
def good(asymmetric: Emulator, user: User) -> str:
    """A token, from the cookie that a login sets."""
    with asymmetric.client() as client:
        client.post("/api/login", json={"email": user.email, "password": PASSWORD})
        return client.cookies["session"]


@pytest.fixture
def bad(good: str, pem: str, user: User) -> dict[str, str]:
    """Tokens that a verifier must refuse, by what is wrong with them."""
    (key,) = parse(pem)
    private: Any = load_pem_private_key(pem.encode(), None)
    claims = jwt.decode(good, options={"verify_signature": False})
    header = {"typ": TYPE, "kid": key.kid}

    def signed(changes: dict[str, Any], headers: dict[str, Any], signing: Any = private) -> str:
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(kept, signing, "ES256", headers=header | headers)

    assert jwt.decode(
        signed({}, {}), private.public_key(), ["ES256"], audience=AUDIENCE, issuer=ISSUER
    )
    secret = base64.urlsafe_b64encode(b"any secret that is long enough for it").decode()
    return {
        "expired": signed({"exp": int(time.time()) - 3600}, {}),
        "endless": signed({"exp": None}, {}),
        "audience": signed({"aud": "another"}, {}),
        "issuer": signed({"iss": "another"}, {}),
        "nobody": signed({"sub": None}, {}),
        "type": signed({}, {"typ": "JWT"}),
        "another key": signed({}, {}, make_p256()),
        "unknown key": signed({}, {"kid": "unknown"}, make_p256()),
        "a secret": SessionTokens(Signing([SECRET])).issue(user, time.time()).text,
        "its name": jwt.encode(claims, secret, "HS256", headers=header),
        "altered": good[:-5] + ("A" if good[-5] != "A" else "B") + good[-4:],
        "empty": "",
    }


def test_the_public_keys_are_there_for_everybody_and_for_five_minutes(
    asymmetric: Emulator, pem: str
) -> None:
    with asymmetric.client() as client:
        response = client.get(PATH)
        head = client.head(PATH)
        posted = client.post(PATH)
    assert response.status_code == head.status_code == 200
    assert response.headers.get_list("Cache-Control") == ["public, max-age=300"]
    assert response.headers["Content-Type"] == "application/json"
    assert "Set-Cookie" not in response.headers
    first, second = response.json()["keys"]
    assert first == parse(pem)[0].jwk
    assert (second["kty"], second["alg"]) == ("OKP", "EdDSA")
    assert posted.status_code == 405
    assert posted.headers.get_list("Cache-Control") == ["no-store"]


def test_where_a_secret_signs_there_are_no_public_keys(emulator: Emulator) -> None:
    with emulator.client() as client:
        found, unknown = client.get(PATH), client.get("/.well-known/nothing")
    assert found.status_code == unknown.status_code == 404
    assert found.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    assert found.headers.get_list("Cache-Control") == ["no-store"]


def test_a_login_is_signed_with_the_private_key(
    asymmetric: Emulator, good: str, user: User, pem: str
) -> None:
    assert jwt.get_unverified_header(good) == {
        "alg": "ES256",
        "typ": TYPE,
        "kid": parse(pem)[0].kid,
    }
    with asymmetric.client() as client:
        answer = client.get("/api/user", headers={"Cookie": f"session={good}"}).json()
    assert answer["id"] == user.id


def test_a_session_signed_with_a_secret_goes_on_and_is_renewed_with_the_key(
    asymmetric: Emulator, user: User
) -> None:
    now = time.time()
    for age, is_renewed in ((0, False), (FRESH_SECONDS + 1, True)):
        token = SessionTokens(Signing([SECRET])).issue(user, now - age).text
        with asymmetric.client() as client:
            response = client.get("/api/user", headers={"Cookie": f"session={token}"})
            assert response.json()["id"] == user.id
            assert ("session" in client.cookies) == is_renewed
    assert jwt.get_unverified_header(response.cookies["session"])["alg"] == "ES256"


def test_we_refuse_what_other_verifiers_must_refuse_but_for_what_only_we_can_tell(
    asymmetric: Emulator, bad: dict[str, str]
) -> None:
    with asymmetric.client() as client:
        statuses = {
            name: client.get("/api/user", headers={"Cookie": f"session={token}"}).status_code
            for name, token in bad.items()
        }
    # A secret of ours is one to us; and an expired token that contradicts itself is none.
    assert {name for name, status in statuses.items() if status == 200} == {"a secret"}
    assert set(statuses.values()) == {200, 401}


def test_the_documents_python_verifies_sessions_and_nothing_else(
    asymmetric: Emulator, good: str, bad: dict[str, str], user: User, tmp_path: Path
) -> None:
    path = tmp_path / "verifier.py"
    path.write_text(_snippet("python").replace(URL, asymmetric.url))
    verify: Callable[[str], dict[str, Any]] = runpy.run_path(str(path))["verify"]
    assert verify(good)["sub"] == user.id
    for name, token in bad.items():
        with pytest.raises(jwt.PyJWTError):
            pytest.fail(f"{name}: {verify(token)}")
