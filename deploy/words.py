"""What a caller's word may be that becomes one of gcloud's, so that none becomes a flag of it."""

from __future__ import annotations

import re
from typing import Any

import click


class Word(click.ParamType[str]):
    """A text of one form; any other is refused by the option's name, and so by its variable's."""

    def __init__(self, name: str, pattern: str) -> None:
        """`name` is what the help calls it; the whole text has to match the pattern."""
        self.name = name
        self._pattern = re.compile(pattern)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the text as it is. Fails as click does."""
        text = str(value)
        if not self._pattern.fullmatch(text):
            variable = f" ({param.envvar})" if param and param.envvar else ""
            self.fail(f"{text!r}{variable} is no {self.name}.", param, ctx)
        return text


_NAME = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"

PROJECT = Word("project of Google's", r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*|")
REGION = Word("region of Google's", r"[a-z][a-z0-9-]*|")
SERVICE = Word("name of a service", _NAME)
REVISION = Word("name of a revision", _NAME)
MEMORY = Word("size of memory", r"[0-9][0-9.]*(?:[KMG]i?|k)?")
