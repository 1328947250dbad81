"""Reads the rows of a users file as a stream: an array, `{"users": […]}`, or JSON Lines.

Python's own scanner takes one row after the other out of a small buffer. The common streaming
parser is as fast, but gives `?` for half of a surrogate pair and crashes on a long number.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from shared import files
from shared.errors import InvalidSource
from shared.formats.strict_json import MAX_DEPTH, depth
from shared.model.user_record import InvalidRow

CHUNK = 128 * 1024
ROW_MAX_LENGTH = 1024 * 1024
"""Characters of one row."""

_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = r'(?:"[^"\\]*"|[-+.0-9eE]+|true|false|null)'
_WRAPPED = re.compile(rf'\{{(?:\s*"[^"\\]*"\s*:\s*{_SCALAR}\s*,)*\s*"users"\s*:\s*(?=\[)')
_HEAD = 4096
_MAX_DIGITS = 20


class Readable(Protocol):
    """A binary stream: a file, or the body of a request."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes, and none at the end."""
        ...


class SourceFile:
    """A users file that has to stay as it is while it is read."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError."""
        self.path = path
        self._file = files.open_regular(path)
        try:
            self._first = os.fstat(self._file.fileno())
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._file.close()

    def read(self, size: int, /) -> bytes:
        """Read on. At the end, raises InvalidSource where the file has changed or was replaced."""
        chunk = self._file.read(size)
        if not chunk and not self._is_as_it_was():
            raise InvalidSource(f"The file {self.path} changed while it was read.")
        return chunk

    def rewind(self) -> None:
        """Begin again, with what must still be the same bytes."""
        self._file.seek(0)

    def _is_as_it_was(self) -> bool:
        try:
            now = self.path.lstat()
        except OSError:
            return False
        return os.path.samestat(now, self._first) and (now.st_size, now.st_mtime_ns) == (
            self._first.st_size,
            self._first.st_mtime_ns,
        )


def open_source(path: Path) -> SourceFile:
    """Open a users file. Raises InvalidSource where that cannot be done."""
    try:
        return SourceFile(path)
    except FileNotFoundError:
        raise InvalidSource(f"There is no file {path}.") from None
    except files.NotARegularFile as error:
        raise InvalidSource(f"{error}.") from None
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error.strerror}.") from error


class Source:
    """The rows of a stream, and what is to be known of its bytes on the way."""

    def __init__(self, stream: Readable) -> None:
        """Read nothing yet."""
        self._stream = stream
        self._hash = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._buffer = ""
        self._shallow = ""
        self._position = 0
        self._line = 1
        self._ended = False
        self._row = (0, 0)
        self.bytes_read = 0
        self.rows_read = 0
        self.is_json_lines = False

    @property
    def sha256(self) -> str:
        """The digest of the bytes read so far, which is the file's own at its end."""
        return self._hash.hexdigest()

    @property
    def row_text(self) -> str:
        """The last row as it is written in the source."""
        return self._buffer[slice(*self._row)]

    def rows(self) -> Iterator[Any]:
        """Give every row; one that cannot be understood is an InvalidRow.

        Raises InvalidSource, and OSError where the stream does.
        """
        self._more()
        if self._buffer.startswith("\ufeff"):
            raise self._invalid("begins with a byte order mark; save it as UTF-8 without one")
        first = self._peek()
        if first == "":
            raise self._invalid("is empty")
        while first == "{" and len(self._buffer) - self._position < _HEAD and self._more():
            pass  # Enough to see which kind of object it is.
        if first == "[":
            yield from self._array()
        elif wrapped := _WRAPPED.match(self._buffer, self._position):
            self._position = wrapped.end()
            yield from self._array()
            while self._peek() == ",":
                self._position += 1
                self._peek()
                if self._value() == "users":
                    raise self._invalid("names users a second time")
                self._expect(":")
                self._peek()
                self._value()
            self._expect("}")
        elif first == "{":
            self.is_json_lines = True
            yield from self._lines()
        else:
            raise self._invalid("is neither an array of users nor one JSON object a line")
        if self._peek():
            raise self._invalid("goes on after its end")

    def _array(self) -> Iterator[object]:
        self._expect("[")
        if self._peek() != "]":
            while True:
                self.rows_read += 1
                yield self._value()
                if self._peek() != ",":
                    break
                self._position += 1
                self._peek()
        self._expect("]")

    def _lines(self) -> Iterator[object]:
        while True:
            end = self._buffer.find("\n", self._position)
            if end < 0:
                if self._more():
                    continue
                end = len(self._buffer)
            self._row = (self._position, end)
            line = self.row_text.strip()
            self._position = end + 1
            if line:
                self.rows_read += 1
                yield _parse_line(line)
            if end == len(self._buffer):
                return

    def _value(self) -> object:
        """Scan one value, reading on for as long as it is incomplete."""
        while True:
            try:
                value, end = _SCANNER.raw_decode(self._shallow, self._position)
            except ValueError as error:
                if len(self._shallow) < len(self._buffer):
                    raise self._invalid("is nested too deeply") from None
                if not self._more():
                    raise self._invalid("breaks off or is no JSON") from error
            else:
                if _is_too_deep(self._buffer[self._position : end]):
                    raise self._invalid("is nested too deeply")
                if end < len(self._buffer) or not self._more():
                    self._row = (self._position, end)
                    self._position = end
                    return value

    def _peek(self) -> str:
        """Skip white space and give the next character, or nothing at the end."""
        character = self._buffer[self._position : self._position + 1]
        if character == ",":  # The most frequent case of all.
            return character
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match
            self._position = match.end()
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def _expect(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise self._invalid("breaks off" if not found else f"lacks a {character!r}")
        self._position += 1

    def _more(self) -> bool:
        """Read another chunk behind what is not consumed yet; tell whether there was one."""
        rest = self._buffer[self._position :]
        if len(rest) > ROW_MAX_LENGTH:
            raise self._invalid(f"is no JSON, or longer than {ROW_MAX_LENGTH} characters")
        if self._ended:
            return False
        chunk = self._stream.read(CHUNK)
        self._ended = not chunk
        try:
            text = self._decoder.decode(chunk, final=self._ended)
        except UnicodeDecodeError:
            raise self._invalid("is not in UTF-8") from None
        if self._ended:
            return False
        self._hash.update(chunk)
        self.bytes_read += len(chunk)
        self._line += self._buffer.count("\n", 0, self._position)
        self._buffer, self._position = rest + text, 0
        self._shallow = _shallow(self._buffer)
        return True

    def _invalid(self, problem: str) -> InvalidSource:
        line = self._line + self._buffer.count("\n", 0, self._position)
        row = f"row {self.rows_read}, " if self.rows_read else ""
        return InvalidSource(f"The file cannot be read: {row}line {line} {problem}.")


def _parse_line(line: str) -> object:
    if _is_too_deep(line):
        return InvalidRow("The line is nested too deeply.")
    try:
        return _SCANNER.decode(line)
    except ValueError:
        return InvalidRow("The line is not JSON.")


def _is_too_deep(text: str) -> bool:
    return depth(text.encode()) > MAX_DEPTH


def _shallow(buffer: str) -> str:
    """Cut off, before it is scanned, what begins outside of any text and gets too deep.

    The array around the rows counts as well, and so does the object around that, if they begin
    in this buffer: how deep a row is by itself is measured once it can be told where it ends.
    """
    if depth(buffer.encode()) <= MAX_DEPTH + 2:
        return buffer
    too_deep = MAX_DEPTH + 3
    ends = range(len(buffer))
    end = bisect_left(ends, too_deep, key=lambda end: depth(buffer[:end].encode()))
    return buffer[:end]


def _members(pairs: list[tuple[str, Any]]) -> object:
    members = dict(pairs)
    if len(members) < len(pairs):
        return InvalidRow("It names a member twice.")
    return members


def _integer(text: str) -> object:
    return int(text) if len(text) <= _MAX_DIGITS else InvalidRow("A number is too large.")


_SCANNER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_constant=lambda _: InvalidRow("It holds NaN or Infinity."),
)


def copy_rows(source: Source, numbers: Iterable[int], write: Callable[[bytes], object]) -> None:
    """Write the rows with these numbers as they stand, in a file that can be read again."""
    wanted = iter(sorted(numbers))
    number = next(wanted, None)
    start = "["
    for _ in source.rows():
        if source.rows_read == number:
            text = source.row_text.strip()
            write((f"{text}\n" if source.is_json_lines else f"{start}\n  {text}").encode())
            start = ","
            number = next(wanted, None)
    if not source.is_json_lines:
        write(b"\n]\n")
