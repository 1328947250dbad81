"""Option types for values that are passed to gcloud, so that none is read as a flag."""

from __future__ import annotations

import re
from typing import Any

import click


class Word(click.ParamType[str]):
    """A text that matches a pattern. The error names the option and its variable."""

    def __init__(self, name: str, pattern: str) -> None:
        """`name` is for help and errors; the pattern must match the whole text."""
        self.name = name
        self._pattern = re.compile(pattern)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Give the text unchanged. Fails as click does."""
        text = str(value)
        if not self._pattern.fullmatch(text):
            variable = f" ({param.envvar})" if param and param.envvar else ""
            self.fail(f"{text!r}{variable} is not a valid {self.name}.", param, ctx)
        return text


_NAME = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"

PROJECT = Word("project id", r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*|")
REGION = Word("region", r"[a-z][a-z0-9-]*|")
SERVICE = Word("service name", _NAME)
REVISION = Word("revision name", _NAME)
MEMORY = Word("memory size", r"[0-9][0-9.]*(?:[KMG]i?|k)?")
