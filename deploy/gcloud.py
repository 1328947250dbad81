"""Runs gcloud: asks it, and has it do something, or only shows what that would be."""

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
    """Gcloud did not answer a question; the message is what it said."""


class NotFound(Refused):
    """What was asked about does not exist."""


class Gcloud:
    """The gcloud of the PATH, which never asks back."""

    def __init__(self, *, dry_run: bool) -> None:
        """Run nothing yet. `dry_run` keeps it at questions."""
        self.dry_run = dry_run
        self._program = shutil.which("gcloud")

    @property
    def is_installed(self) -> bool:
        """Whether there is one."""
        return self._program is not None

    def ask(self, *arguments: str) -> str:
        """Give what a command prints that changes nothing. Raises Refused."""
        done = self._run(*arguments, capture_output=True)
        if done.returncode == 0:
            return str(done.stdout).strip()
        lines = str(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        if "NOT_FOUND" in said or "Cannot find" in said:
            raise NotFound(said)
        raise Refused(said)

    def ask_json(self, *arguments: str) -> Any:
        """Give what a command prints with `--format=json`. Raises Refused."""
        return loads(self.ask(*arguments, "--format=json") or "null")

    def do(self, command: list[str]) -> None:
        """Show a command, as a shell takes it, and run it. Raises Failed."""
        click.echo(shlex.join(command))
        sys.stdout.flush()
        if self.dry_run:
            return
        code = self._run(*command[1:]).returncode
        if code:
            raise Failed(f"gcloud ended with exit code {code}; what it said is above.")

    def _run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        assert self._program
        return subprocess.run(  # noqa: S603  # a list of words, and no shell
            [self._program, *arguments],
            cwd=_ROOT,  # whatever the caller's folder is: `--source=.` is the repository
            env=os.environ | {"CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
            stdin=subprocess.DEVNULL, text=True, check=False, **options,
        )  # fmt: skip
