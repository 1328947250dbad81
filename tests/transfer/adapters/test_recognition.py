"""A file tells which system it comes from, or it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InvalidSource
from shared.transfer.adapters.recognition import Recognised, recognise
from shared.transfer.source_file import open_source
from tests.support.adapted import FILES
from tests.support.transfers import user

SYSTEMS = {
    "aspnet.csv": "aspnet", "auth0-users.ndjson": "auth0", "better-auth.json": "better-auth",
    "clerk.csv": "clerk", "cognito.csv": "cognito", "cognito.json": "cognito",
    "django.json": "django", "firebase-users.json": "firebase",
    "keycloak-realm.json": "keycloak", "supabase-users.csv": "supabase",
    "supertokens.json": "supertokens", "wordpress.json": "wordpress",
}  # fmt: skip


def _recognised(folder: Path, content: str) -> Recognised | None:
    path = folder / "source"
    path.write_text(content)
    with open_source(path) as file:
        return recognise(file)


@pytest.mark.parametrize(("name", "system"), SYSTEMS.items())
def test_each_file_is_recognised(name: str, system: str) -> None:
    with open_source(FILES / name) as file:
        found = recognise(file)
        assert found is not None
        assert (found.adapter.name, file.read(1)) == (system, (FILES / name).read_bytes()[:1])


@pytest.mark.parametrize(
    "content", [[user(1)], {"users": [user(1)]}, [], [7], [{"localID": "x"}], {"a": 1}]
)
def test_a_users_file_of_ours_is_of_no_other_system(content: Any, tmp_path: Path) -> None:
    assert _recognised(tmp_path, json.dumps(content)) is None
    assert _recognised(tmp_path, "[{") is None
    assert _recognised(tmp_path, "") is None


def test_a_file_that_could_be_two_systems_asks(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match=r"could be Firebase or SuperTokens's: .* --from"):
        _recognised(tmp_path, '[{"localId": "a", "loginMethods": []}]')


def test_csv_of_nobody_asks_for_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="--from csv --map"):
        _recognised(tmp_path, "mail,pw\n")


@pytest.mark.parametrize("columns", [28, 29, 52])
def test_firebases_csv_is_recognised_by_its_columns(columns: int, tmp_path: Path) -> None:
    found = _recognised(tmp_path, f"a1,ada@example.com{',' * (columns - 2)}\n")
    assert found is not None
    assert found.adapter.name == "firebase"


def test_a_system_is_found_behind_what_else_the_file_holds_but_not_for_ever(tmp_path: Path) -> None:
    users = {"users": [{"localId": "a"}]}
    assert _recognised(tmp_path, json.dumps({"roles": ["x" * 10_000] * 50} | users)) is not None
    assert _recognised(tmp_path, json.dumps({"roles": ["x" * 10_000] * 500} | users)) is None
