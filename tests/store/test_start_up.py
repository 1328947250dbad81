"""What a starting process says of the users file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.settings import Settings
from shared.store.start_up import check_users_file
from tests.support.emulator import environment
from tests.support.reconciliations import sign_up


def test_sign_ups_that_wait_are_counted_with_the_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "users.json"
    url = "postgresql://u:p@localhost:1/d"
    store = Settings.from_env(environment(DATABASE_URL=url, USERS_FILE=str(file))).store
    for addresses, sentence in (
        (("ada@example.com",), "1 sign-up is pending: `make migrate-reconcile` writes to Postgres"),
        (("bob@example.com",), "2 sign-ups are pending: `make migrate-reconcile` writes to"),
    ):
        sign_up(file, *addresses)
        capfd.readouterr()
        check_users_file(store)
        (line,) = capfd.readouterr().out.splitlines()
        assert json.loads(line)["message"].startswith(sentence)
