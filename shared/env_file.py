"""Reads a file of settings such as `.env`: it is read, never run.

Quoted, unquoted and with `export`, spaces around `=`, comments, values over several lines: what
shells, Docker Compose and dotenv libraries agree on is taken. What they read in different ways (a
`$`, a backtick, one name twice) is refused with its line, so that no setting is ever cut off or
lost without a word. python-dotenv warns and goes on where a line cannot be read, and takes the
comment after an empty value for the value.

`python -m shared.env_file FILE` writes the settings for a shell to `eval`. Variables that the
environment has already take precedence.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

USAGE = 2
"""The exit code where the file cannot be used."""

_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=")
_COMMENT = re.compile(r"[ \t]+#.*")
_REST = re.compile(r"[ \t]*(?:[ \t]#[^\n]*)?(?:\n|$)")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^']*)'")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\n": "", '"': '"', "\\": "\\", "$": "$", "`": "`"}
_CUT_BY_A_SHELL = re.compile(r"[&;|<>() \t]")
_OTHER_SETTING = re.compile(r"^(?:export )?[A-Z][A-Z0-9_]*=(?:\Z|[^=\n])", re.MULTILINE)
_CURLY_QUOTES = "“”„‘’‚«»"  # noqa: RUF001  # what a word processor makes of quotes
_LITERALLY = (
    "the file is read, not run. Put the value in single quotes if it is meant as it stands, "
    "or write out what it stands for"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a line. The sentence quotes no value."""

    line: int
    sentence: str


@dataclass(slots=True)
class EnvFile:
    """The settings of a file, and what cannot be used of it."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    lines: dict[str, int] = field(default_factory=dict)
    """In which line each name stands."""
    problems: list[Problem] = field(default_factory=list)
    shell_cuts: dict[str, str] = field(default_factory=dict)
    """By name, the character at which a shell that runs the file would end the value."""


class _Unreadable(Exception):
    """A line that cannot be used; the message goes after its name."""


def read(path: Path) -> EnvFile:
    """Read a file. Raises OSError."""
    return parse(path.read_bytes())


def parse(data: bytes) -> EnvFile:
    """Read a file's content: all lines, also after one that cannot be used."""
    found = EnvFile()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found.problems.append(Problem(line, "is not UTF-8: save the file as UTF-8"))
        return found
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    position = 0
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        position = _statement(text, position, line, found)
    return found


def _statement(text: str, start: int, line: int, found: EnvFile) -> int:
    """Read what begins at a line's start, and give where the next line begins."""
    end = text.find("\n", start) + 1 or len(text) + 1
    content = text[start : end - 1].strip()
    if not content or content.startswith("#"):
        return end
    start += len(text[start:]) - len(text[start:].lstrip(" \t"))
    match = _NAME.match(text, start)
    if match is None:
        found.problems.append(Problem(line, "is not NAME=value; a comment begins with #"))
        return end
    name = match[1]
    try:
        value, end = _value(text, match.end(), end)
        if "\0" in value or not all(c.isprintable() or c in "\n\r\t" for c in value):
            raise _Unreadable("has an invisible character: type the value again")
        if name in found.lines:
            raise _Unreadable(f"stands in line {found.lines[name]} already: delete one of the two")
    except _Unreadable as error:
        found.problems.append(Problem(line, f"{name} {error}"))
    else:
        found.values[name] = value
        _note_shell(text[start : end - 1], name, value, found)
    found.lines.setdefault(name, line)
    return end


def _value(text: str, start: int, end: int) -> tuple[str, int]:
    """Give a value, and where the next line begins. Raises _Unreadable."""
    written = text[start : end - 1]
    value = _COMMENT.sub("", written).strip(" \t")
    if value[:1] in ("'", '"'):
        return _quoted(text, start + written.index(value))
    if value and value[0] in _CURLY_QUOTES:
        raise _Unreadable("has curly quotes: use straight ones")
    _refuse_expansion(value)
    if value.endswith("\\"):
        raise _Unreadable("ends in a backslash: put a value of several lines in quotes")
    return value, end


def _quoted(text: str, start: int) -> tuple[str, int]:
    is_literal = text[start] == "'"
    match = (_SINGLE_QUOTED if is_literal else _DOUBLE_QUOTED).match(text, start)
    if match is None or _OTHER_SETTING.search(match[1]):
        raise _Unreadable("has a quote that is not closed")
    rest = _REST.match(text, match.end())
    if rest is None:
        raise _Unreadable("has text after its closing quote: quote the value as a whole")
    if is_literal:
        return match[1], rest.end()
    _refuse_expansion(_ESCAPE.sub("", match[1]))
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), match[1]), rest.end()


def _refuse_expansion(text: str) -> None:
    for character in "`$":
        if character in text:
            raise _Unreadable(f"has a {character}: {_LITERALLY}")


def _note_shell(statement: str, name: str, value: str, found: EnvFile) -> None:
    """Note where a shell would end an unquoted value."""
    before, _, after = statement.partition("=")
    is_quoted = after.lstrip()[:1] in ("'", '"')
    if before[-1].isspace() or (after[:1].isspace() and (value or is_quoted)):
        found.shell_cuts[name] = "the space beside ="
    elif not is_quoted and (cut := _CUT_BY_A_SHELL.search(value)):
        found.shell_cuts[name] = "a space" if cut[0].isspace() else cut[0]


def explain(path: Path, found: EnvFile) -> Iterator[str]:
    """Give a sentence for each problem."""
    for problem in found.problems:
        yield f"{path}, line {problem.line}: {problem.sentence}."


def main(arguments: list[str]) -> int:
    """Write the settings that the environment lacks, for a shell; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shared.env_file", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--required", action="store_true", help="The file must exist.")
    options = parser.parse_args(arguments)
    try:
        found = read(options.file)
    except FileNotFoundError:
        if options.required:
            print(f"There is no file {options.file}.", file=sys.stderr)
            return USAGE
        return 0
    except OSError as error:
        print(f"{options.file} cannot be read: {error.strerror}.", file=sys.stderr)
        return USAGE
    for sentence in explain(options.file, found):
        print(sentence, file=sys.stderr)
    if found.problems:
        return USAGE
    for name, value in found.values.items():
        if name not in os.environ:
            line = f"export {name}={shlex.quote(value)}\n"
            sys.stdout.buffer.write(line.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
