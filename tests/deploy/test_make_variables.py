"""What is given to make, or to a deployment, stays one word: no shell and no gcloud acts on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.emulator import ROOT
from tests.support.gcloud import Gcloud

TARGETS = {
    "doctor": "shared.doctor",
    "migrate-dry-run": "plan",
    "migrate-backup": "backup",
    "migrate": "apply",
    "migrate-verify": "verify",
    "migrate-status": "status",
    "migrate-rollback": "rollback",
    "migrate-reconcile": "reconcile",
    "snapshot": "snapshot",
    "export": "export",
    "migrate-schema": "schema",
    "deploy-setup": "setup",
    "deploy": "apply",
    "rollback": "rollback",
    "smoke": "smoke",
    "soak": "tests.soak",
    "test": "pytest",
    "test-quick": "pytest",
    "test-long": "pytest",
}
VARIABLES = (
    "ARGS", "BATCH", "FUNCTION", "SERVICE", "REVISION", "PORT", "URL", "PRODUCTION", "PROJECT",
    "REGION", "USERS_FILE", "DATABASE_URL", "WORKERS", "HISTORIES", "DRY_RUN", "PYTHON",
)  # fmt: skip
ATTACKS = ["x'; touch {}; '", 'x"; touch {}; "', "x; touch {}", "x`touch {}`", "x & touch {} #"]


class _Made:
    """A make whose Python only writes down its words."""

    def __init__(self, folder: Path) -> None:
        self.canary = folder / "canary"
        self._venv, self._heard = folder / "venv", folder / "heard"
        (self._venv / "bin").mkdir(parents=True)
        python = self._venv / "bin" / "python"
        python.write_text(
            '#!/bin/sh\n[ "$2" = shared.env_file ] || [ "$3" = --brief ] ||'
            f' printf "%s\\n" "$@" >> {self._heard}\n'
        )
        python.chmod(0o755)

    def run(self, *words: str, **env: str) -> list[str]:
        """Give what Python was called with, but for the reading and the looking before."""
        self._heard.write_text("")
        make = shutil.which("make")
        assert make
        subprocess.run(
            [make, "-s", "-C", str(ROOT), f"VENV={self._venv}",
             "-o", f"{self._venv}/.runtime", "-o", f"{self._venv}/.dev", *words],
            env={"PATH": os.environ["PATH"]} | env, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert not self.canary.exists(), words
        return self._heard.read_text().splitlines()


@pytest.fixture
def made(tmp_path: Path) -> _Made:
    return _Made(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_no_variable_of_make_becomes_a_command_of_a_shell(made: _Made, target: str) -> None:
    for attack in ATTACKS:
        text = attack.format(made.canary)
        values = dict.fromkeys(VARIABLES, text)
        assert TARGETS[target] in made.run(target, **values)
        assert TARGETS[target] in made.run(
            target, *(f"{name}={value.replace('$', '$$')}" for name, value in values.items())
        )


def test_options_are_split_at_spaces_and_not_read_further(made: _Made) -> None:
    assert made.run("migrate", "ARGS=--yes --plan 8f3c * ~ $$HOME")[-6:] == [
        "--yes", "--plan", "8f3c", "*", "~", "$HOME",
    ]  # fmt: skip
    assert made.run("migrate") == ["-m", "shared.transfer", "apply"]


def test_what_is_not_set_has_its_default(made: _Made, tmp_path: Path) -> None:
    assert made.run("test")[:4] == ["-m", "pytest", "-n", "4"]
    assert made.run("test", "WORKERS=2")[:4] == ["-m", "pytest", "-n", "2"]
    assert made.run("test", WORKERS="2")[:4] == ["-m", "pytest", "-n", "2"]
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {tmp_path}/venv/bin/python "$@"\n')
    python.chmod(0o755)
    runtime = f"{tmp_path}/other"
    path = f"{python.parent}:{os.environ['PATH']}"
    assert made.run(f"VENV={runtime}", f"{runtime}/.runtime", PATH=path)[-3:] == [
        "-m", "venv", runtime,
    ]  # fmt: skip


def test_make_sets_nothing_that_a_server_would_take_for_its_own(tmp_path: Path) -> None:
    """functions-framework reads WORKERS, THREADS and more from its environment."""
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"include {ROOT}/Makefile\nshow:\n\t@env\n")
    environments = [
        subprocess.run(
            ["make", "-s", "-f", name, "show"], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
            input="show:\n\t@env\n", capture_output=True, text=True, check=True,
        ).stdout.splitlines()
        for name in (str(makefile), "-")
    ]  # fmt: skip
    ours, plain = ({line.partition("=")[0] for line in lines} for lines in environments)
    assert ours == plain


def test_the_interpreter_is_one_word(made: _Made, tmp_path: Path) -> None:
    odd = tmp_path / "a python; touch canary"
    odd.write_text(f'#!/bin/sh\nexec {made.canary.parent}/venv/bin/python called "$@"\n')
    odd.chmod(0o755)
    runtime = tmp_path / "other"
    heard = made.run(f"VENV={runtime}", f"{runtime}/.runtime", f"PYTHON={odd}")
    assert ["called", "-m", "venv", str(runtime)] == heard[-4:]


def test_a_batch_is_no_option(tmp_path: Path) -> None:
    for batch in ("--yes", "--help", "x'y"):
        done = subprocess.run(
            ["make", "-s", "-o", ".venv/.runtime", "migrate-rollback", f"BATCH={batch}"], cwd=ROOT,
            env={"PATH": os.environ["PATH"], "USERS_FILE": str(tmp_path / "users.json")}
            | {"DATABASE_URL": "postgresql://u:p@localhost:1/d?sslmode=require", "ARGS": "--yes"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode != 0
        assert "Usage" not in done.stdout
        assert "cannot connect" in done.stderr.lower(), done.stderr


@pytest.mark.parametrize(
    ("action", "variable", "value"),
    [
        ("apply", "SERVICE", "--set-env-vars=X=Y"),
        ("apply", "SERVICE", "-x"),
        ("apply", "SERVICE", "a b"),
        ("apply", "SERVICE", "Login"),
        ("apply", "SERVICE", "x" * 64),
        ("apply", "SERVICE", "a\nb"),
        ("apply", "PROJECT", "--account=x"),
        ("apply", "PROJECT", "a,b"),
        ("apply", "REGION", "us-east5,us-west1"),
        ("apply", "REGION", "--x"),
        ("apply", "MEMORY", "512Mi --x"),
        ("apply", "CPU", "-1"),
        ("apply", "FUNCTION", "--x"),
        ("apply", "FRONT", "--x"),
        ("apply", "URL", "--x"),
        ("rollback", "SERVICE", "--to-latest"),
        ("rollback", "REVISION", "a-1=50,a-2"),
        ("rollback", "REVISION", "--x"),
        ("setup", "PROJECT", "-x"),
    ],
)
def test_what_would_be_another_word_to_gcloud_is_refused_by_name(
    tmp_path: Path, action: str, variable: str, value: str
) -> None:
    gcloud = Gcloud(tmp_path)
    env = {"PROJECT": "my-project", "REGION": "us-east5", "FUNCTION": "login"} | {variable: value}
    done = gcloud.run(action, **env)
    assert done.returncode == 2
    assert variable.lower() in done.stderr.lower()
    assert gcloud.calls == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["FUNCTION=nope"], "Error: Invalid value for FUNCTION: 'nope' is not one of 'api', "),
        (["CPU=many"], "Error: Invalid value for CPU: 'many' is not a valid integer"),
        (["FUNCTION=login", "SERVICE=--x"], "Error: Invalid value for SERVICE: '--x' (SERVICE) is"),
        (["ARGS=--fast"], "options are variables, such as FUNCTION=login and DRY_RUN=1."),
        (["ARGS=more"], "options are variables, such as FUNCTION=login and DRY_RUN=1."),
    ],
)
def test_who_calls_make_is_told_of_variables_where_one_is_wrong(
    words: list[str], sentence: str
) -> None:
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.runtime", "deploy", "PRODUCTION=/dev/null", *words], cwd=ROOT,
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Usage" not in done.stderr
    assert "python" not in done.stderr
