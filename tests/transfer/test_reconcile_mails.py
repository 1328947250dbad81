"""Who signed up in an outage gets the mail that could not be sent then, once."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from shared.model.users import User
from shared.settings import Settings
from shared.store.json_file.store import JsonFileStore
from shared.transfer import reconciling
from tests.support.transfers import Target, finish


@pytest.mark.parametrize("asks", [True, False])
def test_a_sign_up_of_an_outage_is_asked_for_a_proof_where_that_is_asked(
    target: Target, tmp_path: Path, asks: bool
) -> None:
    target.apply([])
    settings = Settings.from_env({"USERS_FILE": str(tmp_path / "pending.json")}).store
    users = JsonFileStore(settings, is_fallback=True)
    user = User(str(uuid.uuid4()), "ada@example.com", None, "local")
    users.create_user(user, "$2b$04$" + "a" * 53, verification="asked", locale="de")
    for _ in range(2):
        finish(
            reconciling.reconcile(
                target.database, users, tmp_path / "quarantine", asks_for_proof=asks
            )
        )
    found = target.run("SELECT kind, recipient, user_id::text, locale FROM mail_outbox")
    assert found == [["verification", user.email, user.id, "de"]][:asks]
