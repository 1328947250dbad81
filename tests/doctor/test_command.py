"""`python -m shared.doctor`: what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest

from shared.doctor.__main__ import main
from shared.doctor.checks import CHECKS
from tests.support.commands import Ended
from tests.support.connect_proxy import ConnectProxy
from tests.support.emulator import ROOT, environment
from tests.support.google import Providers
from tests.support.postgres import PASSWORD, Server, free_port


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return environment(
        USERS_FILE=str(tmp_path / "users.json"), PORT=str(free_port()), PYTHONPATH=str(ROOT)
    )


def _run(folder: Path, variables: Mapping[str, str], *arguments: str) -> Ended:
    """Run it in this process, and check that nothing in the folder is changed."""
    before = sorted(folder.rglob("*"))
    output, error = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = int(str(end.code))
    assert sorted(folder.rglob("*")) == before
    assert PASSWORD not in output.getvalue() + error.getvalue()
    return Ended(code, output.getvalue(), error.getvalue())


def test_where_nothing_is_wrong_the_code_is_0_and_each_check_has_said_so(
    postgres: Server, database: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL='{postgres.url(database)}'\n")
    (tmp_path / ".env").chmod(0o600)
    done = _run(tmp_path, variables)
    assert (done.code, done.error) == (0, "")
    *lines, last = done.output.splitlines()
    assert last == "0 problems, 0 notes."
    assert {line[:8] for line in lines} == {"ok      "}
    assert {line.split()[1] for line in lines} == {name for name, _ in CHECKS} - {
        "pooler",
        "transport",
        "replica",
        "google",
        "mail",
        "redis",
    }


def test_a_problem_is_code_1_with_a_remedy_below_it_and_a_result_for_programs(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    variables["PORT"] = "abc"
    done = _run(tmp_path, variables)
    assert (done.code, done.error) == (1, "")
    sentence = "PORT must be a whole number from 1 to 65535."
    remedy = "The server does not start with it: see README.md, Settings."
    assert f"problem  settings  {sentence}\n                   {remedy}\n" in done.output
    assert done.output.endswith("\n1 problem, 0 notes.\n")
    done = _run(tmp_path, variables, "--json")
    assert (done.code, done.error) == (1, "")
    *checks, result = map(json.loads, done.output.splitlines())
    assert result == {"event": "result", "problems": 1, "notes": 0}
    assert {
        "event": "check", "name": "settings", "verdict": "problem", "sentence": sentence,
        "remedy": remedy,
    } in checks  # fmt: skip
    assert all(check["verdict"] in ("ok", "note", "problem") for check in checks)


def test_a_proxy_that_the_file_names_is_used_as_by_the_service(
    providers: Providers, tmp_path: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    providers.serve_this_process(monkeypatch)
    variables |= {name: providers.settings[name] for name in ("GOOGLE_CLIENT_ID", "SSL_CERT_FILE")}
    with ConnectProxy().running() as proxy:
        (tmp_path / ".env").write_text(f"HTTPS_PROXY=http://{proxy.address}\n")
        done = _run(tmp_path, variables, "--only", "google")
    assert (done.code, done.error) == (0, "")
    assert proxy.asked == [f"localhost:{providers.google.port}"]


def test_only_the_checks_that_are_named_are_made(tmp_path: Path, variables: dict[str, str]) -> None:
    done = _run(tmp_path, variables, "--only", "port", "--only", "files")
    assert [line.split()[1] for line in done.output.splitlines()[:-1]] == ["files", "port"]
    done = _run(tmp_path, variables, "--only", "everything")
    assert done.code == 2
    assert "invalid choice: 'everything'" in done.error


def test_before_a_command_only_problems_are_told_that_it_would_not_tell_itself(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "users.json").write_text("{")
    variables |= {"DATABASE_URL": "postgresql://u:p@localhost:1/d", "FALLBACK": "full"}
    variables |= {"PORT": "1"}  # To the server, and to root alone.
    done = _run(tmp_path, variables, "--brief")
    assert (done.code, done.output) == (1, "")
    (problem, _) = done.error.splitlines()
    assert problem.startswith("problem  files")
    (tmp_path / "users.json").unlink()
    done = _run(tmp_path, variables, "--brief")
    assert (done.code, done.output, done.error) == (0, "", "")


def test_make_tells_a_problem_before_a_migration_and_goes_on(
    postgres: Server, database: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "users.json").write_text("[]")
    postgres.run("ALTER TABLE auth_events OWNER TO postgres", database)
    variables |= {"DATABASE_URL": postgres.url(database)}
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.runtime", "migrate-dry-run"], cwd=ROOT, env=variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "problem  role      The role app lacks SELECT, INSERT, UPDATE, DELETE on" in done.stderr
    assert "Nothing was changed. There is nothing to write." in done.stdout


def test_an_unusable_file_does_not_keep_the_rest_from_being_looked_at(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "my own.env").write_bytes("NAME='öffne\nX=1\n".encode() + b"\x1b[2J")
    done = _run(tmp_path, variables, "--env-file", "my own.env")
    assert done.code == 1
    assert "my own.env, line 1: NAME has a quote that is not closed." in done.output
    assert "Port" in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    ("redirection", "error"),
    [("| true", ""), (">&-", ""), (">/dev/full", "The output cannot be written: No space left")],
)
def test_output_that_nobody_takes_is_no_traceback(
    tmp_path: Path, variables: dict[str, str], redirection: str, error: str
) -> None:
    variables["PYTHONIOENCODING"] = "ascii"
    command = f"{sys.executable} -m shared.doctor --only env-file --env-file ö.env {redirection}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == bool(error)
