"""Runs gcloud: queries, and commands that a dry run only prints."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import Any

import click

from deploy.errors import Failed
from shared.formats.strict_json import loads

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Refused(Exception):
    """Gcloud refused a query; the message is its own."""


class NotFound(Refused):
    """The queried resource does not exist."""


class Gcloud:
    """The gcloud on the PATH, run without prompts."""

    def __init__(self, *, dry_run: bool) -> None:
        """With `dry_run`, `do` only prints."""
        self.dry_run = dry_run
        self._program = shutil.which("gcloud")

    @property
    def is_installed(self) -> bool:
        """Whether the PATH has one."""
        return self._program is not None

    def ask(self, *arguments: str) -> str:
        """Give the output of a read-only command. Raises Refused."""
        if not self.is_installed:
            raise Refused("gcloud is not installed.")
        done = self._run(*arguments, capture_output=True)
        if done.returncode == 0:
            return str(done.stdout).strip()
        lines = str(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        if "NOT_FOUND" in said or "Cannot find" in said:
            raise NotFound(said)
        raise Refused(said)

    def ask_json(self, *arguments: str) -> Any:
        """Give the parsed output of a read-only command with `--format=json`. Raises Refused."""
        return loads(self.ask(*arguments, "--format=json") or "null")

    def do(self, command: list[str]) -> None:
        """Print a command in shell syntax and run it. Raises Failed."""
        click.echo(shlex.join(command))
        sys.stdout.flush()
        if self.dry_run:
            return
        code = self._run(*command[1:]).returncode
        if code:
            raise Failed(f"gcloud failed with exit code {code}; see its output above.")

    def _run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        assert self._program
        return subprocess.run(  # noqa: S603  # a list, without a shell
            [self._program, *arguments],
            cwd=_ROOT,  # `--source=.` must be the repository
            env=os.environ | {"CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            stdin=subprocess.DEVNULL, text=True, check=False, **options,
        )  # fmt: skip
