"""`python -m shared.doctor` as a process: what it writes, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.doctor.checks import CHECKS
from tests.support.emulator import ROOT, environment
from tests.support.postgres import PASSWORD, Server, free_port

COMMAND = [sys.executable, "-m", "shared.doctor"]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return environment(
        USERS_FILE=str(tmp_path / "users.json"), PORT=str(free_port()), PYTHONPATH=str(ROOT)
    )


def _run(
    folder: Path, variables: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, and check that nothing in there is changed."""
    before = sorted(folder.rglob("*"))
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert sorted(folder.rglob("*")) == before
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return done


def test_where_nothing_is_wrong_the_code_is_0_and_each_check_has_said_so(
    postgres: Server, database: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL='{postgres.url(database)}'\n")
    (tmp_path / ".env").chmod(0o600)
    done = _run(tmp_path, variables)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "0 problems, 0 notes."
    assert {line[:8] for line in lines} == {"ok      "}
    assert {line.split()[1] for line in lines} == {name for name, _ in CHECKS} - {"pooler"}


def test_a_problem_is_code_1_with_a_remedy_below_it_and_a_result_for_programs(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    variables["PORT"] = "abc"
    done = _run(tmp_path, variables)
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem  port      PORT must be a whole number from 1 to 65535.\n" in done.stdout
    assert done.stdout.endswith(
        "                   Correct PORT, or delete it.\n1 problem, 0 notes.\n"
    )
    done = _run(tmp_path, variables, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    *checks, result = map(json.loads, done.stdout.splitlines())
    assert result == {"event": "result", "problems": 1, "notes": 0}
    assert checks[-1] == {
        "event": "check", "name": "port", "verdict": "problem",
        "sentence": "PORT must be a whole number from 1 to 65535.",
        "remedy": "Correct PORT, or delete it.",
    }  # fmt: skip
    assert all(check["verdict"] in ("ok", "note", "problem") for check in checks)


def test_in_brief_only_what_is_not_well_is_told_and_of_the_checks_that_are_named(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    variables["PORT"] = "abc"
    done = _run(tmp_path, variables, "--brief", "--only", "port", "--only", "files")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("problem  port      PORT must")
    done = _run(tmp_path, variables, "--brief", "--only", "files")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = _run(tmp_path, variables, "--only", "everything")
    assert done.returncode == 2
    assert "invalid choice: 'everything'" in done.stderr


def test_an_unusable_file_does_not_keep_the_rest_from_being_looked_at(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "my own.env").write_bytes("NAME='öffne\nX=1\n".encode() + b"\x1b[2J")
    variables |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = _run(tmp_path, variables, "--env-file", "my own.env")
    assert done.returncode == 1
    assert "my own.env, line 1: NAME has a quote that is not closed." in done.stdout
    assert "Port" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path, variables: dict[str, str]) -> None:
    command = f"{sys.executable} -m shared.doctor | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stderr == ""
