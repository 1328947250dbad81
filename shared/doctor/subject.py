"""What is looked at, and what a look finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared import env_file
from shared.doctor.inquiry import Inquiry
from shared.environment import Environment, InvalidSettings
from shared.settings import Settings

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence about what was found, and, unless all is well, one about what to do."""

    verdict: Verdict
    sentence: str
    remedy: str = ""


Findings = Iterator[Finding]


def ok(sentence: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("ok", sentence)


def note(sentence: str, remedy: str) -> Finding:
    """Say what works, and deserves a thought."""
    return Finding("note", sentence, remedy)


def problem(sentence: str, remedy: str) -> Finding:
    """Say what does not work, or not for long."""
    return Finding("problem", sentence, remedy)


class Subject:
    """The settings of an environment and of a file, and the database that they name."""

    def __init__(
        self,
        environment: Mapping[str, str],
        path: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the file, if there is one; the environment takes precedence over it."""
        self.environment = environment
        self.path = path
        self.file: env_file.EnvFile | None = None
        self.file_error: OSError | None = None
        try:
            self.file = env_file.read(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.file_error = error
        self.variables = (self.file.values if self.file else {}) | dict(environment)
        self.settings: Settings | None = None
        self.invalid: list[str] = []
        """A sentence about each setting that cannot be used."""
        try:
            self.settings = Settings.from_env(self.variables)
        except InvalidSettings as error:
            self.invalid = error.problems
        self.inquiry: Inquiry | None = None
        """The database that the settings name, unless they say that it is not used."""
        if self.settings is not None and self.settings.store.use_database:
            assert self.settings.database.url is not None, "or the settings would be invalid"
            self.inquiry = Inquiry(self.settings.database.url, self.settings.database, clock)

    def given(self, name: str) -> bool:
        """Tell whether a setting has a value, in common or of the application's own."""
        application = self.variables.get("APPLICATION", "").strip()
        return Environment(self.variables, application).text(name) is not None
