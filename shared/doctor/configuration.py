"""The file of settings, the settings themselves, and the packages that are installed."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from shared import env_file
from shared.doctor.subject import Findings, Subject, note, ok, problem
from shared.formats.counts import count
from shared.settings import Settings

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
OF_REDIS = REQUIREMENTS.with_name("requirements-redis.txt")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s#]+)", re.MULTILINE)


def look_at_packages(subject: Subject) -> Findings:
    """Compare what is installed with what is required."""
    wrong = []
    pinned = _PINNED.findall(REQUIREMENTS.read_text(encoding="utf-8"))
    if subject.given("REDIS_URL") and OF_REDIS.exists():
        pinned += _PINNED.findall(OF_REDIS.read_text(encoding="utf-8"))
    for name, required in pinned:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if installed != required:
            wrong.append(f"{name} is {installed}, not {required}")
    if wrong:
        yield problem(
            f"The installed packages are not those of requirements.txt: {'; '.join(wrong)}.",
            "Delete .venv and run make again, or run `pip install -r requirements.txt`.",
        )
    else:
        version = ".".join(map(str, sys.version_info[:3]))
        yield ok(f"Python {version} has the packages of requirements.txt.")


def look_at_file(subject: Subject) -> Findings:
    """Tell which lines cannot be used, or mean something else to another reader."""
    path, file = subject.path, subject.file
    if subject.file_error is not None:
        reason = subject.file_error.strerror or subject.file_error
        yield problem(f"{path} cannot be read: {reason}.", "Make it a file that you may read.")
    if file is None:
        if subject.file_error is None:
            yield ok(f"There is no {path}: all settings come from the environment.")
        return
    for sentence in env_file.explain(path, file):
        yield problem(sentence, "Until then make starts nothing with this file.")
    for name, at in file.shell_cuts.items():
        yield note(
            f"{path}, line {file.lines[name]}: a shell that runs the file ends {name} at {at}; "
            "make reads it whole.",
            "Put the value in single quotes, with no space beside the equals sign.",
        )
    for name in file.values:
        if subject.environment.get(name, file.values[name]) != file.values[name]:
            yield note(
                f"{name} has another value in the environment, which takes precedence over {path}.",
                f"Run `unset {name}`, or delete line {file.lines[name]}.",
            )
    if file.values and path.stat().st_mode & 0o077:
        yield note(f"Other users of this machine may read {path}.", f"Run `chmod 600 {path}`.")
    if not file.problems:
        yield ok(f"{path} has {count(len(file.values), 'setting')}.")


def look_at_settings(subject: Subject) -> Findings:
    """Tell which settings the server would refuse, or would not see."""
    for sentence in subject.invalid:
        yield problem(sentence, "The server does not start with it: see README.md, Settings.")
    for sentence in Settings.misspelt(subject.variables):
        yield problem(sentence, "Rename or delete it.")
    settings = subject.settings
    if settings is None:
        return
    if settings.database.url is not None and not settings.store.use_database:
        yield note(
            "DATABASE_URL is set, but USE_DATABASE is false: users are in the JSON file.",
            "Delete USE_DATABASE to use the database, and to have it looked at.",
        )
    for name in ("all_proxy", "ALL_PROXY"):
        if subject.variables.get(name):
            yield note(f"{name} is set, and not used.", "Name an HTTP proxy in HTTPS_PROXY.")
            break
    given = sum(map(subject.given, Settings.names()))
    yield ok(f"The settings for {settings.environment} can be used ({given} of them are given).")
