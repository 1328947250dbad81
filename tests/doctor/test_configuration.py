"""The file of settings, the settings and the packages: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shared.doctor import configuration
from shared.doctor.subject import Verdict
from tests.support.doctor import look, told

URL = "postgresql://u:secret@ep-x.neon.tech/db?sslmode=require&channel_binding=require"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / ".env"
    file.touch(mode=0o600)
    return file


def test_a_line_that_a_shell_would_cut_is_named_and_read_whole(path: Path) -> None:
    path.write_text(f"# settings\nDATABASE_URL={URL}\nUSERS_FILE = /srv/users.json\n")
    found = look("env-file", path=path)
    first, second = told(found, "note")
    assert f"{path}, line 2: a shell that runs the file ends DATABASE_URL at &" in first
    assert f"{path}, line 3: a shell that runs the file ends USERS_FILE at the space" in second
    assert "single quotes" in first
    assert "secret" not in first
    assert told(found, "ok") == [f"{path} has 2 settings. "]
    assert told(found, "problem") == []


def test_every_line_that_cannot_be_read_is_a_problem_of_its_own(path: Path) -> None:
    path.write_text("A=$x\nB=1\nC='\n")
    first, second = told(look("env-file", path=path), "problem")
    assert "line 1: A has a $" in first
    assert "line 3: C has a quote that is not closed" in second


def test_a_value_that_the_environment_overrides_is_told_without_values(path: Path) -> None:
    path.write_text("SESSION_SECRET=from-the-file\nPORT=8081\nCOOKIE_NAME=a\n")
    notes = told(look("env-file", path=path, SESSION_SECRET="other", PORT="8081"), "note")
    (shadowed,) = notes
    assert "SESSION_SECRET has another value in the environment" in shadowed
    assert "delete line 1" in shadowed
    assert "from-the-file" not in shadowed


def test_a_file_that_others_may_read_is_told_with_the_command(path: Path) -> None:
    path.write_text("PORT=8081\n")
    path.chmod(0o644)
    (note,) = told(look("env-file", path=path), "note")
    assert f"chmod 600 {path}" in note


def test_no_file_is_no_fault_and_a_folder_is_one(tmp_path: Path) -> None:
    assert told(look("env-file"), "ok") != []
    (problem,) = told(look("env-file", path=tmp_path), "problem")
    assert "Is a directory" in problem


def test_settings_are_those_of_the_file_under_those_of_the_environment(path: Path) -> None:
    path.write_text("LOCKOUT_TIME=15m\nBCRYPT_ROUNDS=99\n")
    (problem,) = told(look("settings", path=path, BCRYPT_ROUNDS="12"), "problem")
    assert "LOCKOUT_TIME must be a whole number from 1000 to 86400000." in problem


@pytest.mark.parametrize(
    ("environment", "verdict", "sentence"),
    [
        (
            {"DATABSE_URL": URL},
            "problem",
            "is no setting; perhaps DATABASE_URL is meant.",
        ),
        ({"ENVIRONMENT": "production"}, "problem", "DATABASE_URL is missing"),
        ({"ENVIRONMENT": "prod"}, "problem", "ENVIRONMENT must be one of"),
        ({"DATABASE_URL": "mysql://x"}, "problem", "must begin with postgresql://"),
        ({"DATABASE_URL": URL, "USE_DATABASE": "false"}, "note", "users are in the JSON file"),
        ({"ALL_PROXY": "http://proxy:3128"}, "note", "ALL_PROXY is set, and not used"),
    ],
)
def test_what_the_server_refuses_or_does_not_see_is_told(
    environment: dict[str, Any], verdict: Verdict, sentence: str
) -> None:
    first, *_ = told(look("settings", **environment), verdict)
    assert sentence in first
    assert "secret@" not in first


def test_packages_that_are_not_the_required_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [it.verdict for it in look("packages")] == ["ok"]
    required = tmp_path / "requirements.txt"
    required.write_text("pg8000==0.1  # old\nno-such-package==1.0\n")
    monkeypatch.setattr(configuration, "REQUIREMENTS", required)
    (problem,) = told(look("packages"), "problem")
    assert "pg8000 is 1." in problem
    assert "not 0.1; no-such-package is missing." in problem


def test_what_redis_needs_is_looked_at_where_redis_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    required = tmp_path / "requirements-redis.txt"
    required.write_text("redis==0.1\n")
    monkeypatch.setattr(configuration, "OF_REDIS", required)
    assert [it.verdict for it in look("packages")] == ["ok"]
    (problem,) = told(look("packages", REDIS_URL="rediss://host"), "problem")
    assert "not 0.1." in problem
