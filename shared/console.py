"""Standard output and error as people see them: what they cannot show, or take, stops nothing."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path


def escape_unencodable() -> None:
    """Write characters that an output's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Keep what a file says from steering the terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def discard_output() -> None:
    """Write nothing more: what standard output didn't take would fail again at the exit."""
    with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
