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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Kind = str | list[str]
"""A flag's: "bool" takes no value, "value" any, and a list is of those that it takes."""

ROOT = Path(__file__).resolve().parents[2]
_FLAGS: dict[str, Any] = json.loads((ROOT / "tests/data/gcloud_flags.json").read_text())
_EVERYWHERE: dict[str, Kind] = _FLAGS["gcloud"]["flags"]
_COMMANDS: dict[str, dict[str, Any]] = _FLAGS["commands"]
Answer = dict[str, Any]


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


@dataclass
class Gcloud:
    """A folder with a `gcloud`, what it answers, and what it was asked."""

    folder: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    """By the command line's beginning; the longest that fits counts. Others print nothing."""

    def __post_init__(self) -> None:
        """Make the program."""
        (self.folder / "bin").mkdir()
        program = self.folder / "bin" / "gcloud"
        lines = (
            f"#!{sys.executable} -IS",  # it is started often
            "import sys",
            f"sys.path.insert(0, {str(ROOT)!r})",
            "from tests.support import gcloud",
            f"gcloud.serve({str(self.folder)!r})",
        )
        program.write_text("\n".join(lines))
        program.chmod(0o755)

    def say(self, beginning: str, stdout: Any = "", *, error: str = "", code: int = 0) -> None:
        """Answer a command with text, with JSON, or with an error."""
        text = stdout if isinstance(stdout, str) else json.dumps(stdout)
        self.answers[beginning] = {
            "stdout": text, "stderr": f"ERROR: (gcloud) {error}\n" if error else "",
            "code": code or (1 if error else 0),
        }  # fmt: skip

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m deploy` with nothing but this gcloud on the PATH."""
        return self.run_program([sys.executable, "-m", "deploy", *arguments], env)

    def run_program(
        self, words: list[str], env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program so, in the project's folder."""
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        (self.folder / "calls").write_text("")
        own = {"PATH": str(self.folder / "bin")}
        own |= dict.fromkeys(("HOME", "CLOUDSDK_CONFIG"), str(self.folder))
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
        lines = (self.folder / "calls").read_text().splitlines()
        found: list[list[str]] = [json.loads(line) for line in lines]
        for words in found:
            parse(words)
        return found

    def called(self, beginning: str) -> list[list[str]]:
        """Those of them that begin so."""
        return [words for words in self.calls if " ".join(words).startswith(beginning)]


def serve(folder: str) -> None:
    """Be gcloud for one command."""
    words = sys.argv[1:]
    with Path(folder, "calls").open("a") as file:
        file.write(json.dumps(words) + "\n")
    try:
        parse(words)
    except WrongUse as error:
        sys.exit(f"ERROR: (gcloud) {error}")
    assert os.environ["CLOUDSDK_CORE_DISABLE_PROMPTS"] == "1"
    answers = json.loads(Path(folder, "answers.json").read_text())
    line = " ".join(words)
    fitting = [beginning for beginning in answers if line.startswith(beginning)]
    if fitting:
        answer = answers[max(fitting, key=len)]
        sys.stdout.write(answer["stdout"])
        sys.stderr.write(answer["stderr"])
        sys.exit(answer["code"])
