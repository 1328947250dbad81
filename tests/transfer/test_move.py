"""After the move nobody is logged out, and everybody logs in with the old password."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from shared.credentials.session_tokens import SessionTokens
from shared.credentials.signing import Signing
from tests.support.emulator import SECRET, running_emulator
from tests.support.postgres import Server
from tests.support.stores import user_of
from tests.support.transfers import Target

DATA = Path(__file__).parents[1] / "data"
PASSWORDS = {
    user["email"]: user["password"]
    for user in json.loads((DATA / "old-users.passwords.json").read_text())
}
AS_RECORDED = ("ada@example.com", "hundred@example.com")
HOUR = 3600


@pytest.fixture(scope="module")
def users_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the JSON mode, whose users have logged in.

    The hashes of all but two are cheaper ones of the same passwords, in the same form.
    """
    users = json.loads((DATA / "old-users.json").read_text())
    for user in users:
        if (password := PASSWORDS.get(user["email"])) and user["email"] not in AS_RECORDED:
            known = password.encode()[:72]
            user["password"] = bcrypt.hashpw(known, bcrypt.gensalt(4, b"2a")).decode()
    copy = tmp_path_factory.mktemp("old") / "users.json"
    copy.write_text(json.dumps(users))
    copy.chmod(0o600)
    return copy


@pytest.fixture(scope="module")
def cookies(users_file: Path) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """The session's cookie and the user, by address, as a login in the JSON mode answers."""
    found = {}
    with running_emulator(USE_DATABASE="false", USERS_FILE=str(users_file)) as before:
        for email, password in PASSWORDS.items():
            with before.client() as client:
                answer = client.post("/api/login", json={"email": email, "password": password})
                assert answer.status_code == 200
                found[email] = (dict(client.cookies), answer.json())
    return found


@pytest.mark.parametrize("back", [False, True])
def test_old_passwords_and_sessions_of_the_json_mode_are_good_after_the_move(
    postgres: Server,
    database: str,
    users_file: Path,
    cookies: dict[str, tuple[dict[str, str], dict[str, Any]]],
    tmp_path: Path,
    *,
    back: bool,
) -> None:
    """And after the return to the JSON mode with an export."""
    target = Target(postgres, database)
    target.apply(users_file.read_bytes())
    settings = {"DATABASE_URL": postgres.url(database)}
    if back:
        exported = tmp_path / "exported.json"
        exported.write_bytes(target.export())
        settings = {"USE_DATABASE": "false", "USERS_FILE": str(exported)}
    tokens = SessionTokens(Signing([SECRET]))
    with running_emulator(**settings) as after:
        for email, password in PASSWORDS.items():
            cookie, user = cookies[email]
            with after.client(cookies=cookie) as client:
                answer = client.get("/api/user")
                assert (answer.status_code, answer.json()) == (200, user)
            stale = tokens.issue(user_of(user), time.time() - HOUR).text
            with after.client(cookies={"session": stale}) as client:
                answer = client.get("/api/user")
                assert (answer.status_code, answer.json()) == (200, user)
                assert "session" in answer.cookies  # Renewed, and so looked up in the store.
            with after.client() as client:
                answer = client.post("/api/login", json={"email": email, "password": password})
                assert (answer.status_code, answer.json()) == (200, user)
