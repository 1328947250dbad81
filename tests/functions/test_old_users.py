"""The old server's users, exactly as it wrote them, served from where they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.credentials.passwords import PasswordHasher
from shared.store.json_file.store import JsonFileStore
from shared.store.settings import StoreSettings
from tests.support.emulator import ROOT, Emulator, running_emulator
from tests.support.stores import credentials

DATA = ROOT / "tests" / "data"
USERS = json.loads((DATA / "old-users.json").read_text())
PASSWORDS = json.loads((DATA / "old-users.passwords.json").read_text())


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the old server's file."""
    return Path(shutil.copy(DATA / "old-users.json", tmp_path_factory.mktemp("old")))


@pytest.fixture(scope="module")
def old_emulator(users_file: Path) -> Iterator[Emulator]:
    """An emulator that serves the copy, at a cost that leaves the old hashes as they are."""
    with running_emulator(USERS_FILE=str(users_file)) as running:
        yield running


@pytest.mark.parametrize("login", PASSWORDS, ids=[login["email"] for login in PASSWORDS])
def test_each_old_local_user_logs_in_with_the_old_password(
    old_emulator: Emulator, login: dict[str, str]
) -> None:
    (user,) = (user for user in USERS if user["email"] == login["email"])
    with old_emulator.client() as client:
        response = client.post("/api/login", json=login)
        assert response.status_code == 200
        assert response.json() == {
            "id": user["id"],
            "email": user["email"],
            "name": user.get("name"),
            "provider": "local",
            "emailVerified": None,
        }
        assert client.get("/api/user").json() == response.json()


@pytest.mark.parametrize(
    "user",
    [user for user in USERS if user["provider"] != "local"],
    ids=lambda user: user["email"],
)
def test_an_old_google_user_cannot_log_in_with_a_password(
    old_emulator: Emulator, user: dict[str, str]
) -> None:
    with old_emulator.client() as client:
        for password in ("null", "undefined", "x"):
            login = {"email": user["email"], "password": password}
            assert client.post("/api/login", json=login).status_code == 401


def test_a_sign_up_keeps_every_old_user_and_the_old_shape(tmp_path: Path, users_file: Path) -> None:
    copy = Path(shutil.copy(DATA / "old-users.json", tmp_path))
    with running_emulator(USERS_FILE=str(copy)) as emulator, emulator.client() as client:
        client.post(
            "/api/signup", json={"email": "new@example.com", "password": "a password of today"}
        )
    *old, new = json.loads(copy.read_text())
    assert old == USERS
    old_shape = ["id", "email", "password", "provider", "createdAt", "updatedAt"]
    assert list(new) == [*old_shape, "unverifiedSince"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.read_text().startswith(DATA.joinpath("old-users.json").read_text()[:-2])


def test_at_login_an_old_hash_is_brought_up_to_todays_rules(tmp_path: Path) -> None:
    copy = Path(shutil.copy(DATA / "old-users.json", tmp_path))
    store = JsonFileStore(StoreSettings(users_file=copy))
    odd = ("linus@example.org", "hundred@example.com", "decomposed@example.com")
    logins = [login for login in PASSWORDS if login["email"] in odd]
    assert len(logins) == len(odd)
    with (
        running_emulator(USERS_FILE=str(copy), BCRYPT_ROUNDS="11") as emulator,
        emulator.client() as client,
    ):
        for login in logins:
            before = credentials(store, login["email"])
            assert client.post("/api/login", json=login).status_code == 200
            after = credentials(store, login["email"])
            assert before is not None
            assert after is not None
            assert after.password_hash not in (None, before.password_hash)
            assert not PasswordHasher(11).needs_rehash(login["password"], after.password_hash or "")
            assert client.post("/api/login", json=login).status_code == 200
            assert credentials(store, login["email"]) == after
