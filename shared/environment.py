"""Reads the environment's variables, and collects problems instead of stopping at the first.

A problem is one sentence; it names the variable and the shape of its value, never a secret's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

NAMES = ("development", "test", "staging", "production")
OVERLAY = "__"
"""Between an application's name and a setting's: SHOP__DATABASE_URL."""

T = TypeVar("T", int, float)


class InvalidSettings(Exception):
    """The process must not start; `problems` holds a sentence for each reason."""

    def __init__(self, problems: list[str]) -> None:
        """Join the problems into one message for the terminal."""
        self.problems = problems
        super().__init__("\n".join(("The settings are not usable:", *(f"- {p}" for p in problems))))


def overlaid(application: str, name: str) -> str:
    """Give the name of a setting that is one application's own."""
    return f"{application.upper().replace('-', '_')}{OVERLAY}{name}"


class Environment:
    """Variables with their types; an empty one counts as absent.

    Those of an application take precedence over the common ones, even where they are empty.
    """

    def __init__(self, variables: Mapping[str, str], application: str = "") -> None:
        """Find out which environment it is, because defaults depend on that."""
        self._variables = variables
        self.application = application
        """The name of one of several; empty where there is only one."""
        self.problems: list[str] = []
        self.asked: set[str] = set()
        """The names that were asked for: those that there are."""
        self.name = self._name()
        """One of NAMES."""
        self.secure = self.name in ("staging", "production")
        """Whether the outside world speaks HTTPS to us and strict rules hold."""

    def text(self, name: str) -> str | None:
        """Read a text, without blanks around it."""
        self.asked.add(name)
        own = overlaid(self.application, name)
        return self._value(own if self.application and own in self._variables else name)

    def words(self, name: str) -> list[str]:
        """Read a list that is separated by commas or blanks."""
        return (self.text(name) or "").replace(",", " ").split()

    def boolean(self, name: str, *, default: bool) -> bool:
        """Read a yes or no, as people write them."""
        text = self.text(name)
        if text is None:
            return default
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() not in ("false", "0", "no", "off"):
            self.problems.append(f"{name} must be true or false.")
        return False

    def number(self, name: str, default: T, at_least: float, at_most: float) -> T:
        """Read a number of the default's type."""
        text = self.text(name)
        if text is None:
            return default
        kind = type(default)
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is not None and at_least <= value <= at_most:
            return value
        noun = "a whole number" if kind is int else "a number"
        # Up to twelve digits: an operator has to type it, so not as 8.64e+07.
        self.problems.append(f"{name} must be {noun} from {at_least:.12g} to {at_most:.12g}.")
        return default

    def _value(self, name: str) -> str | None:
        return self._variables.get(name, "").strip() or None

    def _name(self) -> str:
        name = "ENVIRONMENT" if self.text("ENVIRONMENT") else "NODE_ENV"
        # Cloud Run sets K_SERVICE: a deployment that forgot to say what it is gets strict rules.
        default = "production" if self.text("K_SERVICE") else "development"
        value = (self.text(name) or default).lower()
        if value not in NAMES:
            self.problems.append(f"{name} must be one of {', '.join(NAMES)}.")
            return "production"
        return value
