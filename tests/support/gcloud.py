"""Stands in for gcloud, which tests must never reach: it knows its flags, records, and answers.

The flags are those of the Google Cloud CLI 528.0.0, in `tests/data/gcloud_flags.json`. The `gcloud`
made here is the only program on the PATH of the commands that the tests run.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.emulator import ROOT

Kind = str | list[str]
"""A flag's: "bool" takes no value, "value" any, and a list is of those that it takes."""

_FLAGS: dict[str, Any] = json.loads((ROOT / "tests/data/gcloud_flags.json").read_text())
_EVERYWHERE: dict[str, Kind] = _FLAGS["gcloud"]["flags"]
_COMMANDS: dict[str, dict[str, Any]] = _FLAGS["commands"]


@dataclass(frozen=True)
class Answer:
    """What gcloud prints, and how it ends."""

    stdout: str = ""
    stderr: str = ""
    code: int = 0

    def __str__(self) -> str:
        """Give it as commands of a shell."""
        out, error = shlex.quote(self.stdout), shlex.quote(self.stderr)
        return f"printf %s {out}; printf %s {error} >&2; exit {self.code}"


class WrongUse(Exception):
    """gcloud would refuse this command line."""


def parse(words: list[str]) -> tuple[str, list[str], dict[str, str]]:
    """Give a command line's command, its other words, and its flags. Raises WrongUse."""
    command = next(
        (name for n in range(len(words), 0, -1) if (name := " ".join(words[:n])) in _COMMANDS), None
    )
    if command is None:
        raise WrongUse(f"no such command: {shlex.join(words)}")
    positionals: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(words[len(command.split()) :])
    for word in rest:
        if not word.startswith("--"):
            positionals.append(word)
            continue
        flag, equals, value = word.partition("=")
        kind = _kind(command, flag)
        if kind != "bool" and not equals:
            value = next(rest, "--")
        _check_value(flag, kind, value, given=bool(equals))
        if flag in flags:
            raise WrongUse(f"{flag} is given twice")
        flags[flag] = value
    most = _COMMANDS[command]["positionals"]
    if len(positionals) > most or (most and not positionals):
        raise WrongUse(f"{command} takes {most} words, not {positionals}")
    return command, positionals, flags


def _kind(command: str, flag: str) -> Kind:
    own: dict[str, Kind] = _COMMANDS[command]["flags"]
    kind = own.get(flag) or _EVERYWHERE.get(flag)
    if kind is None and own.get(flag.replace("--no-", "--", 1)) == "bool":
        kind = "bool"
    if kind is None:
        raise WrongUse(f"{command} has no {flag}")
    return kind


def _check_value(flag: str, kind: Kind, value: str, *, given: bool) -> None:
    if kind == "bool" and given:
        raise WrongUse(f"{flag} takes no value")
    if kind != "bool" and value.startswith("--"):
        raise WrongUse(f"{flag} needs a value")
    if isinstance(kind, list) and value not in kind:
        raise WrongUse(f"{flag} is none of {kind}")


_PROGRAM = """#!/bin/sh
printf '%s\\0' "$CLOUDSDK_CORE_DISABLE_PROMPTS" "$@" >"{0}/question"
. "{0}/answer"
"""
"""A Python of its own for each question would be most of what these tests cost."""


@dataclass
class Gcloud:
    """A folder with a `gcloud`, what it answers, and what it was asked."""

    folder: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    """By the command line's beginning; the longest that fits counts. Others print nothing."""
    _calls: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the program, which asks this process."""
        (self.folder / "bin").mkdir()
        program = self.folder / "bin" / "gcloud"
        program.write_text(_PROGRAM.format(self.folder))
        program.chmod(0o755)
        for name in ("question", "answer"):
            os.mkfifo(self.folder / name)

    def say(self, beginning: str, stdout: Any = "", *, error: str = "", code: int = 0) -> None:
        """Answer a command with text, with JSON, or with an error."""
        text = stdout if isinstance(stdout, str) else json.dumps(stdout)
        self.answers[beginning] = Answer(
            text, f"ERROR: (gcloud) {error}\n" if error else "", code or (1 if error else 0)
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m deploy` with nothing but this gcloud on the PATH."""
        return self.run_program([sys.executable, "-m", "deploy", *arguments], env)

    def run_program(
        self, words: list[str], env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program so, in the project's folder."""
        self._calls.clear()
        own = {"PATH": str(self.folder / "bin")}
        own |= dict.fromkeys(("HOME", "CLOUDSDK_CONFIG"), str(self.folder))
        with self._serving():
            done = subprocess.run(
                words,
                cwd=ROOT, env=own | {"PYTHONWARNINGS": "error"} | env, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @property
    def calls(self) -> list[list[str]]:
        """The command lines of the last run, as far as gcloud would take them."""
        for words in self._calls:
            parse(words)
        return self._calls.copy()

    def called(self, beginning: str) -> list[list[str]]:
        """Those of them that begin so."""
        return [words for words in self.calls if " ".join(words).startswith(beginning)]

    @contextmanager
    def _serving(self) -> Iterator[None]:
        question, answer = self.folder / "question", self.folder / "answer"

        def serve() -> None:
            while asked := question.read_bytes():
                prompts, *words = asked.decode().split("\0")[:-1]
                answer.write_text(str(self._answer(prompts, words)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            question.write_bytes(b"")
            thread.join(30)

    def _answer(self, prompts: str, words: list[str]) -> Answer:
        self._calls.append(words)
        try:
            parse(words)
        except WrongUse as error:
            return Answer("", f"ERROR: (gcloud) {error}\n", 1)
        if prompts != "1":
            return Answer("", "Traceback: it would ask back\n", 1)
        line = " ".join(words)
        fitting = [beginning for beginning in self.answers if line.startswith(beginning)]
        return self.answers[max(fitting, key=len)] if fitting else Answer()
