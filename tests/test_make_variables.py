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
        python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {self._heard}\n')
        python.chmod(0o755)

    def run(self, *words: str, **env: str) -> list[str]:
        """Give what Python was called with."""
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
